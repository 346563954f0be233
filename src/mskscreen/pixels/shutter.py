"""The display shutter of a DICOM image (PS3.3 C.7.6.11): what lies outside it is not to be seen.

Rows and columns count from 1 and edges belong to what is seen. Where several shapes are named, only what lies
inside all of them is seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mskscreen.pixels.dicom_header import FrameHeader, Header

Mask = npt.NDArray[np.bool_]
_EDGES = [f"Shutter{edge}Edge" for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")]
KEYWORDS = (
    *("ShutterShape", *_EDGES),
    *("CenterOfCircularShutter", "RadiusOfCircularShutter", "VerticesOfThePolygonalShutter"),
)
_MOST_VALUES = 2000
_FARTHEST = 1e6  # pixels


def hidden_by_shutter(header: Header, frame: FrameHeader) -> Mask | None:
    """Which pixels (rows, columns) the shutter hides, or None where there is no shutter.

    One that is malformed or would hide everything is left out with a warning.
    """
    shapes = {header.text("ShutterShape", index).upper() for index in range(3)} - {""}
    if not shapes:
        return None
    seen = np.ones((frame.rows, frame.columns), np.bool_)
    for shape in sorted(shapes):
        part = _SHAPES[shape](header, frame) if shape in _SHAPES else None
        if part is None:
            header.warnings.append("ShutterShape or its measures are not usable; the shutter was not applied")
            return None
        seen &= part
    if not seen.any():
        header.warnings.append("the shutter would hide the whole image; it was not applied")
        return None
    header.warnings.append("what lies outside the display shutter (0018,1600) is black")
    return ~seen


def _rectangle(header: Header, frame: FrameHeader) -> Mask | None:
    edges = [value for keyword in _EDGES for value in _measures(header, keyword, 1)]
    if len(edges) != len(_EDGES):
        return None
    left, right, upper, lower = edges
    rows, columns = _places(frame)
    return (columns >= left) & (columns <= right) & (rows >= upper) & (rows <= lower)


def _circle(header: Header, frame: FrameHeader) -> Mask | None:
    centre, radius = (
        _measures(header, "CenterOfCircularShutter", 2),
        _measures(header, "RadiusOfCircularShutter", 1),
    )
    if len(centre) != 2 or len(radius) != 1:
        return None
    rows, columns = _places(frame)
    # By half the width of each row, so that no number is kept for each pixel.
    square = radius[0] ** 2 - (rows - centre[0]) ** 2
    half: npt.NDArray[np.float64] = np.sqrt(np.maximum(square, 0))
    return (square >= 0) & (np.abs(columns - centre[1]) <= half)


def _polygon(header: Header, frame: FrameHeader) -> Mask | None:
    values = _measures(header, "VerticesOfThePolygonalShutter", _MOST_VALUES)
    if len(values) < 6 or len(values) % 2:
        return None
    drawn = Image.new("1", (frame.columns, frame.rows))
    corners = [(column - 1, row - 1) for row, column in zip(values[::2], values[1::2], strict=True)]
    ImageDraw.Draw(drawn).polygon(corners, fill=1, outline=1)
    return np.asarray(drawn)


def _measures(header: Header, keyword: str, most: int) -> list[float]:
    """The values of an element if all are places in or near an image and no more than `most`, else none."""
    values = header.numbers(keyword)
    return values if len(values) <= most and all(abs(value) < _FARTHEST for value in values) else []


def _places(frame: FrameHeader) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Numbers of the rows, as a column, and of the columns, as a row."""
    return np.arange(1.0, frame.rows + 1)[:, None], np.arange(1.0, frame.columns + 1)


_SHAPES = {"RECTANGULAR": _rectangle, "CIRCULAR": _circle, "POLYGONAL": _polygon}
