"""Builds a cache: in parallel, resumable after a kill, by one process at a time."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.data.cache import BLOCK, METADATA, SCHEMA, Cache, CacheContract, Entry, changed, digest_of
from mskscreen.data.journal import Journal
from mskscreen.data.manifest import Manifest
from mskscreen.data.tree import Tree
from mskscreen.errors import DataError, DecodeError
from mskscreen.lock import locked
from mskscreen.pixels import Preprocessing, read_radiograph
from mskscreen.storage import replacing
from mskscreen.workers import in_blocks


def build_cache(
    manifest: Manifest,
    folder: Path,
    contract: CacheContract,
    *,
    workers: int = 1,
    wait: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Cache, bool]:
    """The cache of a manifest in `folder`, and whether it had to be built.

    A whole cache whose sources have not changed is opened and verified; a run that was killed goes on where it
    was; a stale or damaged cache is built again. `advance` is told how many images were finished. An image that
    cannot be decoded is black and has its error in the index. Raises DataError where another process is
    building the same cache (with `wait` its end is awaited instead) or the disk is too small.
    """
    index = folder / f"{contract.name(manifest)}.parquet"
    with locked(index.with_suffix(".lock"), "this cache", wait=wait):
        if index.is_file():
            try:
                cache = Cache.open(index)
                if not cache.stale(manifest.tree):
                    advance(len(manifest))
                    return cache, False
            except DataError:
                pass
            index.unlink()
            index.with_suffix(".npy").unlink(missing_ok=True)
        _Builder(manifest, index, contract).run(workers, advance)
        return Cache.open(index), True


class _Builder:
    """Builds one cache: the partial array beside a journal of the blocks in it."""

    def __init__(self, manifest: Manifest, index: Path, contract: CacheContract) -> None:
        self.manifest, self.index, self.contract = manifest, index, contract
        self.final = index.with_suffix(".npy")
        self.partial = index.with_suffix(".npy.partial")
        made = Preprocessing.parse(contract.preprocessing)
        self.shape = (len(manifest), made.height, made.width)
        self.images = list(manifest["image"])
        self.blocks = [self.images[start : start + BLOCK] for start in range(0, len(manifest), BLOCK)]

    def run(self, workers: int, advance: Callable[[int], None]) -> None:
        """Fill what is missing, then give the files their names, the index last."""
        if self.final.is_file():
            # Killed between the two renames: the array is complete, but only its journal can say so.
            self.final.replace(self.partial)
        if not self.partial.is_file():
            self.index.with_suffix(".journal").unlink(missing_ok=True)
            self._allocate()
        journal = Journal(self.index.with_suffix(".journal"), self.index.stem)
        try:
            done = self._fill(journal, workers, advance)
        finally:
            journal.close()
        self.partial.replace(self.final)
        self._write_index([done[number] for number in range(len(self.blocks))])
        journal.path.unlink()

    def _fill(self, journal: Journal, workers: int, advance: Callable[[int], None]) -> dict[int, dict[str, Any]]:
        """Decode the blocks that are not finished; returns the records of all."""
        done = self._finished(journal)
        advance(sum(len(self.blocks[number]) for number in done))
        todo = [number for number in range(len(self.blocks)) if number not in done]
        results = in_blocks(
            partial(_decode, self.manifest.tree, self.contract),
            [self.blocks[number] for number in todo],
            workers=workers,
            crashed=partial(_crashed, self.manifest.tree),
        )
        pixels = np.load(self.partial, mmap_mode="r+")
        for position, block in results:
            number = todo[position]
            here = pixels[number * BLOCK : number * BLOCK + len(block)]
            for row, (image, _) in zip(here, block, strict=True):
                row[:] = 0 if image is None else image
            pixels.flush()
            entries = [entry for _, entry in block]
            done[number] = {"block": number, "digest": digest_of(here), "entries": entries}
            journal.append(done[number])
            advance(len(block))
        return done

    def _allocate(self) -> None:
        """An empty array of the full size; a disk that cannot hold it is said now, not by a crash later."""
        size = int(np.prod(self.shape)) * np.dtype(self.contract.dtype).itemsize
        with replacing(self.partial) as path, path.open("wb") as stream:
            header = {"descr": np.dtype(self.contract.dtype).str, "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(stream, header)
            stream.truncate(stream.tell() + size)
            if hasattr(os, "posix_fallocate"):
                try:
                    os.posix_fallocate(stream.fileno(), 0, stream.tell() + size)
                except OSError as error:
                    raise DataError(
                        f"{self.index.parent}: no room for {size / 1e9:.1f} GB of cache ({error.strerror})"
                    ) from error

    def _finished(self, journal: Journal) -> dict[int, dict[str, Any]]:
        """Blocks of the journal whose pixels are on disk as they were written and whose sources are unchanged."""
        pixels = np.load(self.partial, mmap_mode="r")
        if pixels.shape != self.shape:
            raise DataError(f"{self.partial.name}: not of this cache; delete it")
        tree = self.manifest.tree
        return {
            record["block"]: record
            for record in journal.records
            if digest_of(pixels[record["block"] * BLOCK : (record["block"] + 1) * BLOCK]) == record["digest"]
            and not any(changed(tree, Entry(*entry)) for entry in record["entries"])
        }

    def _write_index(self, blocks: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        entries = [Entry(*entry) for block in blocks for entry in block["entries"]]
        kinds = zip(Entry._fields, ("string", "int64", "int64", "string", "string"), strict=True)
        columns = {name: pa.array([getattr(entry, name) for entry in entries], kind) for name, kind in kinds}
        described = {
            "schema": SCHEMA,
            "contract": dataclasses.asdict(self.contract),
            "digests": [block["digest"] for block in blocks],
        }
        table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(described)})
        with replacing(self.index) as path:
            pq.write_table(table, path)


def _decode(tree: Tree, contract: CacheContract, image: str) -> tuple[np.ndarray | None, Entry]:
    try:
        size, modified = tree.size_and_time(image)
        radiograph = read_radiograph(tree.file(image))
        pixels = Preprocessing.parse(contract.preprocessing)(radiograph)[0]
        stored = np.rint(pixels * np.float32(np.iinfo(contract.dtype).max)).astype(contract.dtype)
        return stored, Entry(image, size, modified, radiograph.record.sha256, None)
    except (DecodeError, DataError) as error:
        return None, _failed(tree, image, str(error))


def _crashed(tree: Tree, image: str) -> tuple[None, Entry]:
    return None, _failed(tree, image, "the decoder crashed on this file")


def _failed(tree: Tree, image: str, error: str) -> Entry:
    return Entry(image, *tree.size_and_time(image), None, error)
