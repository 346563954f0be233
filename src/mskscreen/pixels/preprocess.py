"""Preprocessing as a printable string: what happens between a radiograph and the input of a model.

    decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit

`decode` and `grayscale` name the decoder of this package: values are on the full range of the source's type, or
windowed as a DICOM header asks. `window(auto)` stretches the 0.5th to the 99.5th percentile of the exposed area to
[0, 1], and does so only where nobody has made the values fit for display: rasters of more than 8 bits. An image of
8 bits, and a DICOM image that the decoder windowed, pass through it unharmed. `resize` squashes to (height, width)
as the published release did; `letterbox` keeps the aspect ratio between black margins. `unit` says that values are
left in [0, 1]: the model's own normalisation is inside its graph.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from mskscreen.errors import PreprocessingError, short
from mskscreen.pixels.geometry import Geometry
from mskscreen.pixels.radiograph import Radiograph
from mskscreen.pixels.reduction import MARGINS, Enough, Reading
from mskscreen.pixels.resample import resize
from mskscreen.pixels.window import auto_window, grid_step

_FITS = {"resize": Geometry.squash, "letterbox": Geometry.letterbox}
_OPERATIONS = ("decode", "grayscale", "window", *_FITS, "unit")
_FORM = "decode|grayscale|window(auto)|resize(H,W,bilinear,antialias)|unit"
_LARGEST = 4096


@dataclass(frozen=True)
class Preprocessing:
    """A parsed preprocessing string; `str` is the inverse of `parse`."""

    height: int
    width: int
    fit: str = "resize"
    window: bool = True

    @classmethod
    def parse(cls, text: str) -> Preprocessing:
        """Read a string of the grammar above; `window(auto)` may be left out, blanks do not matter.

        Raises PreprocessingError, which names the operation at fault and the nearest known one.
        """
        names = []
        fit, size = "", (0, 0)
        for part in text.replace(" ", "").split("|"):
            match = re.fullmatch(r"(\w*)(?:\((.*)\))?", part, re.ASCII)
            if match is None or match[1] not in _OPERATIONS:
                _unknown(text, part if match is None else match[1])
            name, arguments = match[1], match[2]
            names.append("fit" if name in _FITS else name)
            if name in _FITS:
                fit, size = name, _size(text, name, arguments or "")
            elif arguments != ("auto" if name == "window" else None):
                wanted = "window(auto)" if name == "window" else name
                _fail(text, f"'{short(part)}' is not understood; write '{wanted}'")
        window = "window" in names
        if names != ["decode", "grayscale", *["window"] * window, "fit", "unit"]:
            _fail(text, f"operations are missing or out of order; the form is '{_FORM}'")
        return cls(*size, fit=fit, window=window)

    def __str__(self) -> str:
        window = "window(auto)|" if self.window else ""
        return f"decode|grayscale|{window}{self.fit}({self.height},{self.width},bilinear,antialias)|unit"

    def geometry(self, rows: int, columns: int) -> Geometry:
        """How a source of this size maps to the input."""
        return _FITS[self.fit](rows, columns, self.height, self.width)

    def enough(self, reading: Reading) -> Enough:
        """How many rows and columns of a source are enough for this input: see `read_radiograph`."""
        margin = MARGINS[reading]
        if margin is None:
            return None

        def size(rows: int, columns: int) -> tuple[int, int]:
            geometry = self.geometry(rows, columns)
            return margin * geometry.box_height, margin * geometry.box_width

        return size

    def shown(self, radiograph: Radiograph) -> Radiograph:
        """The radiograph as the fit takes it: windowed, where this preprocessing has a window."""
        return _shown(radiograph) if self.window else radiograph

    def __call__(self, radiograph: Radiograph) -> npt.NDArray[np.float32]:
        """The model's input: float32 (1, height, width) in [0, 1]."""
        shown = self.shown(radiograph)
        geometry = self.geometry(radiograph.record.rows, radiograph.record.columns)
        resized = resize(shown.values, shown.table, geometry.box_height, geometry.box_width, shown.box)
        # Rounding of the filter's weights may pass the ends by an ulp.
        box = np.clip(resized, 0, 1)
        if box.shape == (self.height, self.width):
            return box[None]
        result = np.zeros((1, self.height, self.width), np.float32)
        rows = slice(geometry.top, geometry.top + geometry.box_height)
        result[0, rows, geometry.left : geometry.left + geometry.box_width] = box
        return result


def displayed(radiograph: Radiograph) -> npt.NDArray[np.float32]:
    """The pixels as `window(auto)` shows them to a model, and as a person should see them."""
    return _shown(radiograph).pixels


def _shown(radiograph: Radiograph) -> Radiograph:
    if radiograph.record.windowed:
        return radiograph
    step = grid_step(*radiograph.values.shape)
    sample = replace(radiograph, values=radiograph.values[::step, ::step]).pixels
    window = auto_window(sample, None, step)
    if window is None:
        return radiograph
    # Each value is stretched by itself: stretching the table stretches all that is looked up in it.
    values = radiograph.values if radiograph.table is None else radiograph.table
    stretched = np.clip((values - np.float32(window.low)) * np.float32(1 / (window.high - window.low)), 0, 1)
    return replace(radiograph, **{"values" if radiograph.table is None else "table": stretched})


def _size(text: str, name: str, arguments: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5}),(\d{1,5}),bilinear,antialias", arguments, re.ASCII)
    if match is None:
        _fail(text, f"'{name}({short(arguments)})' is not understood; write '{name}(H,W,bilinear,antialias)'")
    height, width = int(match[1]), int(match[2])
    if not (1 <= height <= _LARGEST and 1 <= width <= _LARGEST):
        _fail(text, f"the size of '{name}' must lie between 1 and {_LARGEST}")
    return height, width


def _unknown(text: str, name: str) -> NoReturn:
    name = short(name)
    nearest = difflib.get_close_matches(name, _OPERATIONS, n=1, cutoff=0)
    _fail(text, f"operation '{name}' is unknown; the nearest known one is '{nearest[0]}'")


def _fail(text: str, reason: str) -> NoReturn:
    raise PreprocessingError(f"preprocessing '{short(text)}': {reason}")
