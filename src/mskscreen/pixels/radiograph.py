"""The canonical image of mskscreen and the account of how it was made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mskscreen.pixels.resample import look_up
from mskscreen.pixels.window import grid_step

FLAG_FOR_PROCESSING = "for-processing"
FLAG_NOT_RADIOGRAPHY = "not-radiography"
FLAG_BURNED_IN = "burned-in-annotation"
FLAG_CONSTANT = "constant-image"
FULL_RANGE = "full range"
AS_GIVEN = "as given"


@dataclass(frozen=True)
class DecodeRecord:
    """Everything that was done between a file and its radiograph.

    `sha256` is of the source's bytes, of a data set or an array those of its pixels; `bits` are the significant
    bits of a source sample; `photometric` is DICOM's photometric interpretation or Pillow's mode;
    `modality_transform` and `window` say in words which LUT, rescale or window was applied; `padding` is the range
    of stored values that were set to black, `padded` their number; `spacing` says in words which spacings the file
    tells and which of them the ruler of pictures takes; `crop` (top, left, bottom, right) is the exposed area that
    a percentile window was measured in, while every pixel is kept; `orientation` is the EXIF value that was
    undone; `rows` and `columns` are the source's, and `halvings` says how often they were halved in reading it;
    `dicom` holds the identifiers that grouping, flags and result objects need. No file name and no patient's name.
    """

    format: str
    sha256: str
    bits: int
    rows: int
    columns: int
    photometric: str
    transfer_syntax: str | None = None
    modality_transform: str = "none"
    window: str = FULL_RANGE
    inverted: bool = False
    padding: tuple[int, int] | None = None
    padded: int = 0
    spacing: str | None = None
    crop: tuple[int, int, int, int] | None = None
    orientation: int = 1
    halvings: int = 0
    icc_ignored: bool = False
    warnings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    dicom: Mapping[str, str] | None = None

    @property
    def windowed(self) -> bool:
        """Whether the values are fit for display: windowed by the decoder, or of 8 bits and so made for it."""
        return self.window != FULL_RANGE or self.bits <= 8

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values, without the patient's identifier."""
        values: dict[str, Any] = json.loads(json.dumps(self._values()))
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal; it pins the source and what was done to its pixels."""
        values = self._values()
        del values["spacing"]  # it changes the ruler of pictures only
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _values(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.dicom is not None:
            values["dicom"] = {key: value for key, value in self.dicom.items() if key != "patient_id"}
        return values


@dataclass(frozen=True)
class Spacing:
    """Millimetres between columns; `at_detector` says that the object, magnified, is smaller than they tell."""

    mm: float
    at_detector: bool


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One frame, `pixels`, and how it was made.

    `values` (rows, columns) are the pixels themselves, or codes whose entries in `table` are the pixels: a model
    sees a small picture, and most of a large image need never be floats. Where it was read at a fraction of its
    resolution, the source covers the part `box` (left, top, right, bottom) of them, and they are fewer than the
    record's rows and columns. `spacing` is that of the pixels, None where the file does not say it.
    """

    values: npt.NDArray
    record: DecodeRecord
    box: tuple[float, float, float, float] | None = None
    table: npt.NDArray[np.float32] | None = None
    spacing: Spacing | None = None

    @cached_property
    def pixels(self) -> npt.NDArray[np.float32]:
        """Float32 (rows, columns) in [0, 1], bone bright."""
        return self.values if self.table is None else look_up(self.table, self.values)

    def with_pixels(self, pixels: npt.NDArray[np.float32]) -> Radiograph:
        """The same radiograph as if its source had held other pixels, float32 (rows, columns) in [0, 1].

        They are taken as ready for display: `window(auto)` leaves them as they are.
        """
        rows, columns = pixels.shape
        record = dataclasses.replace(self.record, rows=rows, columns=columns, halvings=0, window=AS_GIVEN)
        return dataclasses.replace(self, values=pixels, record=record, box=None, table=None)


def constant_flag(values: npt.NDArray, table: npt.NDArray[np.float32] | None) -> tuple[str, ...]:
    """The flag of an image that shows one even grey, of the `values` and `table` of its Radiograph."""
    step = grid_step(*values.shape)
    # Nearly every image is cleared by a few of its pixels.
    for part in (values[::step, ::step], values):
        low, high = part.min(), part.max()
        if low != high and (table is None or table[low] != table[high] or np.ptp(look_up(table, part)) > 0):
            return ()
    return (FLAG_CONSTANT,)
