"""Readers of data sets: each turns one layout on disk into a manifest and findings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from mskscreen.data.findings import Findings
from mskscreen.data.kinds import Kind
from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import index_mura, release_folder
from mskscreen.data.sources.dicom import index_dicom
from mskscreen.data.sources.tables import index_csv, index_fracatlas, index_grazpedwri, index_lera
from mskscreen.errors import DataError


class Reader(Protocol):
    """Reads the data set at `root`; symbolic links may lead out of it only where `links` is set."""

    def __call__(self, root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
        """Manifest and findings."""


READERS: dict[str, Reader] = {
    Kind.MURA: index_mura,
    Kind.FRACATLAS: index_fracatlas,
    Kind.GRAZPEDWRI: index_grazpedwri,
    Kind.LERA: index_lera,
    Kind.CSV: index_csv,
    Kind.DICOM: index_dicom,
}


def read_source(root: Path, source: str = Kind.AUTO, *, links: bool = False) -> tuple[Manifest, Findings]:
    """Manifest and findings of the data set at `root`, a folder or a plain CSV.

    Raises DataError where the kind of data set is unknown or `root` does not hold one.
    """
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    name = detect(root) if source == Kind.AUTO else source
    if name not in READERS:
        raise DataError(f"source '{source}' is unknown; use {', '.join(Kind)}")
    manifest, findings = READERS[name](root, links=links)
    if not len(manifest):
        raise DataError(f"{root}: lists no image that can be used as source '{name}'")
    return manifest, findings


def detect(root: Path) -> Kind:
    """Which reader fits `root`, by the lists it holds; a folder without any is taken for DICOM files."""
    if root.is_file():
        return Kind.CSV
    if (root / "dataset.csv").is_file():
        with (root / "dataset.csv").open(encoding="utf-8-sig", errors="replace") as stream:
            return Kind.GRAZPEDWRI if "filestem" in stream.readline(10_000) else Kind.FRACATLAS
    if (root / "labels.csv").is_file():
        return Kind.LERA
    return Kind.MURA if release_folder(root) else Kind.DICOM


def with_hashes(manifest: Manifest, advance: Callable[[int], None], workers: int = 2) -> Manifest:
    """The manifest with the SHA-256 of every file that is there; `advance(1)` is called after each."""
    tree = manifest.tree

    def digest(row: int) -> str | None:
        if manifest["bytes"][row] is None:
            return None
        with tree.file(manifest["image"][row]).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    digests = []
    with ThreadPoolExecutor(workers) as pool:
        for value in pool.map(digest, range(len(manifest))):
            digests.append(value)
            advance(1)
    return manifest.replace({**manifest.columns, "sha256": digests})
