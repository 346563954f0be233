"""The manifest: one row an image, the only description of a data set that later steps read.

It is a Parquet file with the columns of `COLUMNS` and any number of further ones (a second label set, a fold).
What a source does not say is null, never guessed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.data.tree import PathError, Tree, inside
from mskscreen.errors import DataError
from mskscreen.storage import replacing

SCHEMA = 1
# view: number of the image within its study as the source counts it; label: 0 normal, 1 abnormal;
# joint: one of the seven joint types, or another region in the source's own words.
COLUMNS = {
    "image": "string",
    "study": "string",
    "patient": "string",
    "joint": "string",
    "view": "int32",
    "label": "int8",
    "split": "string",
    "bytes": "int64",
    "sha256": "string",
}
HELD_OUT = ("valid", "test")
_METADATA = b"mskscreen.manifest"


def own_studies(studies: Sequence[str | None], patients: Sequence[str | None]) -> list[str | None]:
    """Names of studies, with the patient in front of one that several patients have, such as `1` or `study1`.

    One study of all of them would be a single case, abnormal as soon as one patient is.
    """
    owner: dict[str | None, str] = {}
    several = {s for s, p in zip(studies, patients, strict=True) if p and owner.setdefault(s, p) != p}
    return [f"{p}/{s}" if s and p and s in several else s for s, p in zip(studies, patients, strict=True)]


@dataclass(frozen=True)
class Manifest:
    """Images below `root`, column by column; `image` holds paths relative to it.

    `links` says whether symbolic links may lead out of the root; `notes` is JSON-able and records how further
    columns came about. Raises DataError where columns are missing or of unequal length.
    """

    root: Path
    columns: Mapping[str, Sequence[Any]] = field(repr=False)
    source: str
    links: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [name for name in COLUMNS if name not in self.columns]
        if missing:
            raise DataError(f"manifest: column '{missing[0]}' is missing; index the folder again")
        if len({len(values) for values in self.columns.values()}) > 1:
            raise DataError("manifest: the columns have unequal lengths; index the folder again")

    @classmethod
    def from_rows(cls, root: Path, rows: Sequence[Mapping[str, Any]], source: str, **more: Any) -> Manifest:
        """A manifest of rows that hold some of COLUMNS; what a row lacks is null."""
        return cls(root, {name: [row.get(name) for row in rows] for name in COLUMNS}, source, **more)

    def __len__(self) -> int:
        return len(self.columns["image"])

    def __getitem__(self, column: str) -> Sequence[Any]:
        try:
            return self.columns[column]
        except KeyError:
            known = ", ".join(self.columns)
            raise DataError(f"the manifest has no column '{column}'; it has {known}") from None

    def numbers(self, column: str, missing: int = -1) -> np.ndarray:
        """An integer column as int64, null as `missing`."""
        return np.array([missing if value is None else value for value in self[column]], np.int64)

    def take(self, rows: Sequence[int] | np.ndarray) -> Manifest:
        """The manifest of some rows, in the order given."""
        return self.replace({name: [values[i] for i in rows] for name, values in self.columns.items()})

    def replace(self, columns: Mapping[str, Sequence[Any]], **notes: Any) -> Manifest:
        """The manifest with other columns, and with `notes` added to its own."""
        return dataclasses.replace(self, columns=columns, notes={**self.notes, **notes})

    @property
    def groups(self) -> list[str]:
        """What must stay together in a split: the patient, else the study, else the image itself."""
        rows = zip(self["patient"], self["study"], self["image"], strict=True)
        return [
            f"patient {patient}" if patient else f"study {study}" if study else f"image {image}"
            for patient, study, image in rows
        ]

    @property
    def studies(self) -> list[str]:
        """The study of each image; an image without one is its own."""
        return [study or image for study, image in zip(self["study"], self["image"], strict=True)]

    @property
    def tree(self) -> Tree:
        """The folder of the images, which refuses paths and links that lead out of it."""
        return Tree(self.root, links=self.links)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all columns: the identity of the data, wherever the root lies."""
        hasher = hashlib.sha256()
        for name, values in self.columns.items():
            # A column that somebody added may hold what JSON does not know, such as times.
            hasher.update(json.dumps([name, list(values)], separators=(",", ":"), default=str).encode())
        return hasher.hexdigest()

    def write(self, path: Path) -> None:
        """Write the manifest whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            name: pa.array(values, COLUMNS.get(name), from_pandas=False) for name, values in self.columns.items()
        }
        metadata = {
            "schema": SCHEMA,
            "root": str(self.root.resolve()),
            "source": self.source,
            "links": self.links,
            "digest": self.digest,
            "notes": dict(self.notes),
        }
        table = pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(metadata)})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            pq.write_table(table, partial)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest and verify its digest.

        Raises DataError where the file is missing, cut short, changed, of another schema, or names an image
        outside its root.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, partitioning=None)
            described = json.loads((table.schema.metadata or {})[_METADATA])
            schema, digest = described["schema"], described["digest"]
            root, source = Path(described["root"]), described["source"]
            links, notes = described["links"], described["notes"]
        except FileNotFoundError:
            raise DataError(f"{path}: no such manifest; write one with: mskscreen data index ROOT") from None
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: not a whole manifest of mskscreen; index the folder again") from error
        if schema != SCHEMA:
            raise DataError(f"{path}: schema {schema} is not the schema {SCHEMA} of this version; index again")
        columns = {name: table[name].to_pylist() for name in table.column_names}
        manifest = cls(root, columns, source, links, notes)
        if manifest.digest != digest:
            raise DataError(f"{path}: the digest does not fit the rows; index the folder again")
        for row, image in enumerate(manifest["image"]):
            try:
                shortest = inside(image)
            except PathError as error:
                raise DataError(f"{path}: row {row}: {error}; index the folder again") from error
            if shortest != image:
                raise DataError(f"{path}: row {row}: the path is not in its shortest form; index the folder again")
        return manifest
