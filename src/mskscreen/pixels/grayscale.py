"""The grayscale pipeline of DICOM: stored values -> modality -> values of interest -> display -> [0, 1].

Sources, all in DICOM PS3.3: C.11.1 (Modality LUT), C.11.2.1 (VOI LUT, and the window functions in C.11.2.1.2 and
C.11.2.1.3), C.7.6.3 (photometric interpretation), C.7.5.1.1.2 (pixel padding), C.7.6.11 (display shutter), C.11.6
(Presentation LUT Shape). All but the shutter is a function of one stored value, so up to 16 bits the pipeline is
one table, looked up once a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mskscreen.pixels.radiograph import FULL_RANGE
from mskscreen.pixels.resample import look_up
from mskscreen.pixels.window import auto_window, grid_step

Values = npt.NDArray[np.float64]
_TABLE_BITS = 16
# Wider values are worked through in pieces of this many pixels, to bound the memory of doubles.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Lut:
    """A look-up table: input `first` meets `entries[0]`; beyond its ends the outermost entries hold."""

    first: int
    bits: int
    entries: npt.NDArray[np.uint16]

    def __call__(self, values: Values) -> Values:
        """Entries for `values`."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)].astype(np.float64)

    @property
    def top(self) -> float:
        """The value of white: what the declared bits hold, or the largest entry where that is more."""
        return float(max(2**self.bits - 1, int(self.entries.max())))


@dataclass(frozen=True)
class Window:
    """Window centre and width with the VOI LUT function that they are meant for."""

    center: float
    width: float
    function: str = "LINEAR"

    def __call__(self, values: Values) -> Values:
        """Display values in [0, 1]."""
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.center) / self.width, -700, 700)
            return 1 / (1 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.center) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (values > self.center - 0.5).astype(np.float64)
        return np.clip((values - (self.center - 0.5)) / (self.width - 1) + 0.5, 0, 1)

    def __str__(self) -> str:
        return f"{self.function} window centre {self.center:g} width {self.width:g}"


@dataclass(frozen=True)
class Pipeline:
    """What a header asks for between stored values and display.

    Codes are the stored bits as unsigned integers; with `signed` they are two's complement of `bits` bits.
    `padding` is a range of stored values, both ends included.
    """

    bits: int
    signed: bool
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    voi: Lut | Window | None = None
    inverted: bool = False
    padding: tuple[int, int] | None = None

    def stored(self, codes: npt.NDArray) -> Values:
        """Stored values of codes."""
        values = codes.astype(np.float64)
        if self.signed:
            values -= (values >= 2.0 ** (self.bits - 1)) * 2.0**self.bits
        return values

    def modality(self, stored: Values) -> Values:
        """Modality values, such as optical density or exposure, of stored values."""
        if self.modality_lut is not None:
            return self.modality_lut(stored)
        return stored * self.slope + self.intercept

    def is_padding(self, stored: Values) -> npt.NDArray[np.bool_]:
        """Which stored values are padding."""
        if self.padding is None:
            return np.zeros(stored.shape, np.bool_)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])


@dataclass(frozen=True)
class Shown:
    """What was done to show pixels in [0, 1], bone bright: codes with their `table`, or pixels without one."""

    values: npt.NDArray
    table: npt.NDArray[np.float32] | None
    window: str
    crop: tuple[int, int, int, int] | None
    padded: int
    warning: str | None


def show(codes: npt.NDArray, pipeline: Pipeline, hidden: npt.NDArray[np.bool_] | None = None) -> Shown:
    """Apply `pipeline` to codes (rows, columns), inverting once and setting padding and what is `hidden` to black.

    Without a VOI transformation, up to 8 bits are shown over their full range, since they were made to be looked
    at; more are shown through a percentile window inside the exposed area.
    """
    display, window, crop, warning = _display(codes, pipeline, hidden)

    def convert(part: npt.NDArray) -> npt.NDArray[np.float32]:
        stored = pipeline.stored(part)
        shown = display(pipeline.modality(stored))
        if pipeline.inverted:
            shown = 1 - shown
        return np.where(pipeline.is_padding(stored), 0, np.clip(shown, 0, 1)).astype(np.float32)

    if pipeline.bits <= _TABLE_BITS:
        domain = np.arange(2**pipeline.bits)
        counts = np.bincount(codes.ravel(), minlength=len(domain)) if pipeline.padding is not None else domain
        padded = int(counts[pipeline.is_padding(pipeline.stored(domain))].sum())
        table = convert(domain)
        if hidden is None:
            return Shown(codes, table, window, crop, padded, warning)
        return Shown(np.where(hidden, np.float32(0), look_up(table, codes)), None, window, crop, padded, warning)
    flat, padded = codes.ravel(), 0
    pixels = np.empty(flat.shape, np.float32)
    for start in range(0, flat.size, _PIECE):
        part = flat[start : start + _PIECE]
        pixels[start : start + _PIECE] = convert(part)
        padded += int(pipeline.is_padding(pipeline.stored(part)).sum())
    if hidden is not None:
        pixels[hidden.ravel()] = 0
    return Shown(pixels.reshape(codes.shape), None, window, crop, padded, warning)


def _display(
    codes: npt.NDArray, pipeline: Pipeline, hidden: npt.NDArray[np.bool_] | None
) -> tuple[Callable[[Values], Values], str, tuple[int, int, int, int] | None, str | None]:
    """Function from modality values to [0, 1], its name, the area it was measured in, and a warning."""
    voi = pipeline.voi
    if isinstance(voi, Lut):
        top = voi.top
        return lambda values: voi(values) / top, f"VOI LUT of {len(voi.entries)} entries", None, None
    if voi is not None:
        return voi, str(voi), None, None
    if pipeline.bits <= 8:
        ends = pipeline.modality(np.array(_stored_range(pipeline), np.float64))
        return _ramp(float(ends.min()), float(ends.max())), FULL_RANGE, None, None
    step = grid_step(*codes.shape)
    stored = pipeline.stored(codes[::step, ::step])
    valid = ~pipeline.is_padding(stored)
    if hidden is not None:
        valid &= ~hidden[::step, ::step]
    auto = auto_window(pipeline.modality(stored), valid, step)
    if auto is None:
        return lambda values: np.full(values.shape, 0.5), "none", None, "the image is constant: nothing is shown"
    return _ramp(auto.low, auto.high), str(auto), auto.crop, None


def _stored_range(pipeline: Pipeline) -> tuple[int, int]:
    half = 2 ** (pipeline.bits - 1)
    return (-half, half - 1) if pipeline.signed else (0, 2 * half - 1)


def _ramp(low: float, high: float) -> Callable[[Values], Values]:
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return lambda values: np.full(values.shape, 0.5)
    return lambda values: np.clip((values - low) / (high - low), 0, 1)
