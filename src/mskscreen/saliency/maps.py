"""A map on disk: the values in the frame of the radiograph, and beside them JSON that says what they are."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.errors import DataError
from mskscreen.storage import replacing, write_text

SCHEMA = 1
Form = Literal["png", "npy"]
_LEVELS = 65535
_NOTICE = f"shows what the model used, not where the lesion is; {NOT_FOR_DIAGNOSIS}"
_LARGEST = 1 << 28
_REMEDY = "delete it and run explain again"
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("file", "study", "method", "of", "job"), str),
    **dict.fromkeys(("rows", "columns"), int | None),
    **dict.fromkeys(("slope", "intercept", "passes"), int | float),
}


@dataclass(frozen=True)
class MapRecord:
    """One map of one image.

    `of` is the class it speaks of, in units of its log-odds. `map` is a file beside the record, None where there
    is none and `reason` says why: `.npy` float32, or a 16-bit PNG whose values are `slope` times the stored ones
    plus `intercept`. It has the `rows` and `columns` of the radiograph as decoded, which are told without a map
    too, upright where the file's EXIF `orientation` says how. `passes`, `error` and `converged` are those of
    `Explained`.
    """

    file: str
    study: str
    joint: str | None
    p_abnormal: float | None
    abnormal: bool | None
    method: str
    of: str
    job: str
    model: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    patient: str | None = None
    map: str | None = None
    reason: str | None = None
    overlay: str | None = None
    rows: int | None = None
    columns: int | None = None
    orientation: int = 1
    slope: float = 1.0
    intercept: float = 0.0
    passes: int = 0
    error: float | None = None
    converged: bool | None = None
    schema: int = SCHEMA
    notice: str = _NOTICE

    def write(self, path: Path) -> None:
        """Write the record whole or not at all."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=1, default=dict) + "\n")

    @classmethod
    def read(cls, path: Path) -> MapRecord:
        """Read a record.

        Raises DataError where the file is none, or names a map outside its folder.
        """
        try:
            record = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: not a record of mskscreen explain ({error}); run it again") from error
        for name in (record.map, record.overlay):
            if name is not None and (not isinstance(name, str) or Path(name).name != name):
                raise DataError(f"{path}: field 'map' or 'overlay' names a file of another folder; run it again")
        wrong = [name for name, kind in _KINDS.items() if not isinstance(getattr(record, name), kind)]
        if wrong:
            raise DataError(f"{path}: field '{wrong[0]}' is not what explain writes; run it again")
        if record.schema != SCHEMA:
            raise DataError(f"{path}: schema {record.schema} is not the schema {SCHEMA}; run explain again")
        return record

    def values(self, folder: Path) -> npt.NDArray[np.float32]:
        """The map, float32 (rows, columns).

        Raises DataError where it is missing, damaged, not finite, or of another size than the record says.
        """
        if self.map is None or not self.rows or not self.columns or self.rows * self.columns > _LARGEST:
            raise DataError(f"{self.file}: method {self.method} has no map ({self.reason or 'none was made'})")
        path = folder / self.map
        try:
            if path.suffix == ".npy":
                stored: npt.NDArray = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                with Image.open(path) as picture:
                    if picture.size != (self.columns, self.rows):
                        raise ValueError(f"size {picture.size}")
                    stored = np.asarray(picture)
        except (OSError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: the map cannot be read ({error}); {_REMEDY}") from error
        if stored.shape != (self.rows, self.columns) or stored.dtype.kind not in "fui":
            raise DataError(f"{path}: shape {stored.shape} is not that of its record; {_REMEDY}")
        with np.errstate(over="ignore", invalid="ignore"):
            values: npt.NDArray[np.float32] = stored.astype(np.float32) * np.float32(self.slope)
            values += np.float32(self.intercept)
        if not np.isfinite(values).all():
            raise DataError(f"{path}: the map holds values that are not finite numbers; {_REMEDY}")
        return values


def write_values(path: Path, values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Write a map by the suffix of `path`, whole or not at all; gives slope and intercept of the stored values."""
    if path.suffix == ".npy":
        with replacing(path) as partial:
            np.save(partial, values.astype(np.float32), allow_pickle=False)
        return 1.0, 0.0
    low, high = float(values.min()), float(values.max())
    slope = (high - low) / _LEVELS or 1.0
    stored = np.round((values.astype(np.float64) - low) / slope).astype(np.uint16)
    with replacing(path) as partial:
        Image.fromarray(stored).save(partial, compress_level=4)
    return slope, low


def read_records(folder: Path, left_out: Callable[[str], None] | None = None) -> Iterator[MapRecord]:
    """The records of a folder that `mskscreen explain` wrote, by name.

    `left_out` is told of records that cannot be read. Raises DataError where the folder holds none, or one cannot
    be read and nobody is told.
    """
    paths = sorted(folder.glob("*.map.json"))
    if not paths:
        raise DataError(f"{folder}: holds no maps; make them with: mskscreen explain FILES --out {folder}")
    for path in paths:
        try:
            record = MapRecord.read(path)
        except DataError as error:
            if left_out is None:
                raise
            left_out(str(error))
        else:
            yield record
