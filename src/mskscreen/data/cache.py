"""Decoded and resized images of a manifest as one memory-mapped array.

A cache is two files: `NAME.npy`, unsigned integers (images, height, width), and `NAME.parquet`, its index. The
index is written last: an array without one is not a cache. The name says how the images were made, as in
`224x224-squash-uint8-9f31c0d2a4b7`, where the end is a digest of the images and of the preprocessing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mskscreen.data.manifest import Manifest
from mskscreen.data.tree import Tree
from mskscreen.errors import DataError
from mskscreen.pixels import Preprocessing

SCHEMA = 1
BLOCK = 128
METADATA = b"mskscreen.cache"
_WORDS = {"resize": "squash", "letterbox": "letterbox"}


@dataclass(frozen=True)
class CacheContract:
    """How the pixels of a cache came about: the preprocessing string and the type of its values.

    A pixel of value 1 is stored as the largest value of `dtype` (uint8 or uint16).
    """

    preprocessing: str
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "uint16"):
            raise DataError(f"cache: values of type '{self.dtype}' are not supported; use uint8 or uint16")
        Preprocessing.parse(self.preprocessing)

    def name(self, manifest: Manifest) -> str:
        """Name of the cache of a manifest: size, fit, type, and a digest of the images and this contract."""
        made = Preprocessing.parse(self.preprocessing)
        identity = [manifest["image"], manifest["bytes"], manifest["sha256"], dataclasses.astuple(self), SCHEMA]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return f"{made.height}x{made.width}-{_WORDS[made.fit]}-{self.dtype}-{digest[:12]}"


class Entry(NamedTuple):
    """Where one image of a cache comes from; `error` says why its pixels are black."""

    image: str
    bytes: int | None
    modified: int | None
    sha256: str | None
    error: str | None


@dataclass(frozen=True)
class Cache:
    """A whole cache, opened for reading; `path` is its index."""

    path: Path
    contract: CacheContract
    entries: tuple[Entry, ...] = dataclasses.field(repr=False)
    digests: tuple[str, ...] = dataclasses.field(repr=False)

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Cache:
        """Open the cache of an index file; `verify` compares every pixel with the digests (about 1 s a gigabyte).

        Raises DataError where it is not whole.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, partitioning=None)
            described = json.loads((table.schema.metadata or {})[METADATA])
            entries = tuple(Entry(**row) for row in table.to_pylist())
            schema, digests = described["schema"], tuple(described["digests"])
            contract = CacheContract(**described["contract"])
        except FileNotFoundError:
            raise DataError(f"{path.name}: no such cache; build it with: mskscreen data cache MANIFEST") from None
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path.name}: not a whole index of a cache; build the cache again") from error
        if schema != SCHEMA:
            raise DataError(f"{path.name}: the cache is of schema {schema}; build the cache again")
        cache = cls(path, contract, entries, digests)
        if verify:
            cache.verify()
        return cache

    def __len__(self) -> int:
        return len(self.entries)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file itself: pickling a memory map would copy the pixels.
        return {name: value for name, value in self.__dict__.items() if name != "pixels"}

    @property
    def scale(self) -> int:
        """The stored value of a pixel of 1."""
        return int(np.iinfo(self.contract.dtype).max)

    @cached_property
    def pixels(self) -> np.ndarray:
        """The images, unsigned integers (images, height, width), mapped into memory.

        Raises DataError where the array does not fit the index.
        """
        file = self.path.with_suffix(".npy")
        made = Preprocessing.parse(self.contract.preprocessing)
        try:
            pixels = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{file.name}: missing or cut short; build the cache again") from error
        if pixels.shape != (len(self), made.height, made.width) or pixels.dtype != self.contract.dtype:
            raise DataError(f"{file.name}: the array does not fit its index; build the cache again")
        return pixels

    def verify(self) -> None:
        """Compare every block of pixels with its digest.

        Raises DataError where one differs.
        """
        for number, digest in enumerate(self.digests):
            if digest_of(self.pixels[number * BLOCK : (number + 1) * BLOCK]) != digest:
                raise DataError(f"{self.path.stem}.npy: the pixels were changed or damaged; build the cache again")
            self._release()

    def rows(self, manifest: Manifest) -> np.ndarray:
        """Row in the cache of each image of a manifest, int64, -1 where the image could not be decoded.

        Raises DataError where the cache does not hold the images that the manifest describes.
        """
        where = {entry.image: row for row, entry in enumerate(self.entries)}
        rows = np.empty(len(manifest), np.int64)
        described = zip(manifest["image"], manifest["bytes"], manifest["sha256"], strict=True)
        for i, (image, size, sha256) in enumerate(described):
            row = where.get(image)
            entry = self.entries[row] if row is not None else None
            if row is None or entry is None or _differs(entry, size, sha256):
                raise DataError(
                    f"{self.path.name}: stale, it does not hold the file of row {i} of the manifest; "
                    "index the folder again and build the cache of that"
                )
            rows[i] = -1 if entry.error else row
        return rows

    def stale(self, tree: Tree) -> int:
        """How many images have changed on disk since they were decoded."""
        return sum(changed(tree, entry) for entry in self.entries)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Copy of some images, float32 (n, height, width) in [0, 1]."""
        images = self.pixels[np.asarray(rows)].astype(np.float32)
        images /= np.float32(self.scale)
        self._release()
        return images

    def _release(self) -> None:
        """Give back the pages that were read: they stay in the system's cache, and this process does not grow."""
        if isinstance(self.pixels.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self.pixels.base.madvise(mmap.MADV_DONTNEED)


def _differs(entry: Entry, size: int | None, sha256: str | None) -> bool:
    return entry.bytes != size or (None not in (sha256, entry.sha256) and entry.sha256 != sha256)


def changed(tree: Tree, entry: Entry) -> bool:
    """Whether the file is another one: by size and time, and by content where only the time differs."""
    size, modified = tree.size_and_time(entry.image)
    if size != entry.bytes:
        return True
    if modified == entry.modified or entry.sha256 is None:
        return modified != entry.modified
    with tree.file(entry.image).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() != entry.sha256


def digest_of(pixels: np.ndarray) -> str:
    """SHA-256 of a block of pixels."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
