"""The evidence map drawn over its radiograph: for a person to look at, never for a decision."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mskscreen.anatomy import ABNORMALITY_LABELS, NOT_FOR_DIAGNOSIS
from mskscreen.errors import one_line
from mskscreen.pixels.radiograph import Spacing

LONG_SIDE = 720
# Side of a cell of a contact sheet: the words of a page are still read; and how many cells make a sheet.
CELL = 960
_ACROSS, _DOWN = 3, 12
# Of the largest evidence of a map: what is below FLOOR is not drawn, a line runs at CONTOUR.
FLOOR, CONTOUR = 0.2, 0.5
OPACITY = 0.5
UNIT = "log-odds"
# Methods whose values only rank places.
_UNITLESS = ("Grad-CAM", "CAM")
_RULERS = (200, 100, 50, 20, 10, 5, 2, 1)
_MARGIN, _TEXT, _BAR = 20, 20, 24
# Least height of a colour bar, at which its numbers do not touch.
_SCALE = 8 * _TEXT
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_BLACK, _WHITE, _GREY = (0, 0, 0), (240, 240, 240), (170, 170, 170)

# Ten even steps of viridis (van der Walt and Smith, CC0): even in lightness and told apart with any colour vision.
_VIRIDIS = np.array(
    [
        (0x44, 0x01, 0x54),
        (0x48, 0x28, 0x78),
        (0x3E, 0x49, 0x89),
        (0x31, 0x68, 0x8E),
        (0x26, 0x82, 0x8E),
        (0x1F, 0x9E, 0x89),
        (0x35, 0xB7, 0x79),
        (0x6E, 0xCE, 0x58),
        (0xB5, 0xDE, 0x2B),
        (0xFD, 0xE7, 0x25),
    ],
    np.float32,
)


def draw_overlay(
    pixels: npt.NDArray,
    evidence: npt.NDArray | Mapping[str, npt.NDArray],
    caption: str,
    *,
    of: str = ABNORMALITY_LABELS[1],
    plain: bool = True,
    spacing: Spacing | None = None,
) -> Image.Image:
    """The radiograph under its evidence map, beside itself if `plain`, with the scale and what the picture is not.

    `pixels` (rows, columns) lie in [0, 1]; `evidence` (rows, columns), of the same frame at any resolution, is
    the contribution to the log-odds of the class `of`: one map of HiResCAM, or maps by the title of their method,
    side by side; none leaves the radiograph alone. Only evidence from a fifth of the largest of the map on is
    coloured, the more opaque the stronger, and a line runs at half of the largest: colours of two maps cannot be
    compared, their scales can. `spacing`, of `pixels`, gives a ruler.
    """
    maps = evidence if isinstance(evidence, Mapping) else {"HiResCAM": evidence}
    rows, columns = pixels.shape
    factor = LONG_SIDE / max(rows, columns)
    width, height = max(1, round(columns * factor)), max(1, round(rows * factor))
    grey = _resized(pixels, width, height)[..., None] * np.full(3, 255, np.float32)
    panels = [_Panel("radiograph", _image(grey))] if plain or not maps else []
    for title, values in maps.items():
        positive = np.maximum(_resized(values, width, height), 0)
        top = float(positive.max())
        relative = positive / top if top > 0 else positive
        panels.append(_Panel(title, _image(_coloured(grey, relative)), top))
    ruler = _ruler(spacing.mm / factor, spacing, width) if spacing else None
    return _page(panels, caption, of, ruler)


def contact_sheets(paths: Sequence[Path]) -> Iterator[Image.Image]:
    """Pictures on pages of three cells across and twelve down, in their order.

    Those of a row are equally high, at most a cell, and a row is as wide as the page: only the last ends before,
    and one whose next picture is so wide that it would leave the others less than half a cell.
    """
    rows: list[list[tuple[Path, float]]] = [[]]
    for path in paths:
        with Image.open(path) as picture:
            shaped = path, picture.width / picture.height
        if rows[-1] and _height([*rows[-1], shaped]) < CELL // 2:
            rows.append([])
        rows[-1].append(shaped)
        if sum(shape for _, shape in rows[-1]) >= _ACROSS:
            rows.append([])
    rows = [row for row in rows if row]
    for start in range(0, len(rows), _DOWN):
        yield _sheet(rows[start : start + _DOWN])


def _height(row: Sequence[tuple[Path, float]]) -> int:
    """Of pictures, given with their width over their height, that together are as wide as a sheet."""
    return max(1, min(CELL, int(_ACROSS * CELL / sum(shape for _, shape in row))))


def _sheet(rows: Sequence[Sequence[tuple[Path, float]]]) -> Image.Image:
    heights = [_height(row) for row in rows]
    page = Image.new("RGB", (_ACROSS * CELL, sum(heights)), _BLACK)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        edges = np.cumsum([0.0, *(shape * height for _, shape in row)]).round().astype(int).tolist()
        for (path, _), left, right in zip(row, edges[:-1], edges[1:], strict=True):
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((max(1, right - left), height), Image.Resampling.LANCZOS)
            page.paste(small, (left, top))
        top += height
    # A single row may end before the edge.
    return page if len(rows) > 1 else page.crop((0, 0, edges[-1], top))


def colours(values: npt.NDArray) -> npt.NDArray[np.float32]:
    """RGB (..., 3) in [0, 255] of values in [0, 1]."""
    steps = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.interp(values, steps, channel) for channel in _VIRIDIS.T], axis=-1).astype(np.float32)


def said(joint: str | None, p_abnormal: float | None, abnormal: bool | None) -> str:
    """What a model said of an image, as captions give it; None is what it did not learn."""
    parts = [joint] if joint else []
    if p_abnormal is not None:
        parts.append(f"abnormal: {p_abnormal:.2f}, called {'abnormal' if abnormal else 'normal'}")
    return ", ".join(parts)


def overlay_name(shown: str, file: str) -> str:
    """A file name without folders for the overlay of `file`, distinct for distinct files.

    `shown` is the readable part: its last three components, in letters that are safe everywhere. It should be
    the path without labels.
    """
    path = PurePath(shown)
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join((*path.parts[-3:-1], path.stem)))[-80:].strip("-")
    digest = hashlib.sha256(file.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{safe or 'image'}-{digest}.png"


def _resized(values: npt.NDArray, width: int, height: int) -> npt.NDArray[np.float32]:
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _coloured(grey: npt.NDArray, relative: npt.NDArray) -> npt.NDArray:
    """A picture (rows, columns, 3) under evidence in [0, 1]; its contour is a light line beside a dark one."""
    weight = OPACITY * np.clip((relative - FLOOR) / (1 - FLOOR), 0, 1)[..., None]
    picture = (1 - weight) * grey + weight * colours(relative)
    inside = relative >= CONTOUR
    picture[_rim(~inside)] = _BLACK
    picture[_rim(inside)] = _WHITE
    return picture


def _rim(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels inside that touch one outside."""
    wide = np.pad(inside, 1, mode="edge")
    return inside & ~(wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:])


def _ruler(mm: float, spacing: Spacing, width: int) -> _Ruler | None:
    """The longest round length that is at most 40 % of a picture of `width` pixels of `mm`."""
    length = next((length for length in _RULERS if length <= 0.4 * width * mm), None)
    if length is None:
        return None
    return _Ruler(round(length / mm), f"{length} mm{' at the detector' if spacing.at_detector else ''}")


class _Ruler(NamedTuple):
    """A length in pixels of the page and what it says."""

    pixels: int
    text: str


def _image(values: npt.NDArray) -> Image.Image:
    return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))


class _Panel(NamedTuple):
    """A picture, the method it shows, and the head of its colour scale; None for a radiograph alone."""

    title: str
    picture: Image.Image
    top: float | None = None

    def width(self, font: _Font) -> int:
        """Of the picture with its scale, and not less than of the title."""
        scale = 0 if self.top is None else _BAR + 6 * _TEXT
        return _MARGIN + max(self.picture.width + scale, int(font.getlength(self.title)))


def _page(panels: Sequence[_Panel], caption: str, of: str, ruler: _Ruler | None) -> Image.Image:
    """The pictures side by side, each colour bar to its right, two lines above, below the ruler and the notes."""
    font = ImageFont.load_default(_TEXT)
    caption = one_line(caption)
    line = _TEXT + 8
    upper = _MARGIN + 2 * line + _MARGIN // 2
    height = panels[0].picture.height
    if len(panels) > 1 or panels[0].top is not None:
        height = max(height, _SCALE)
    notes = [NOT_FOR_DIAGNOSIS]
    if any(panel.top for panel in panels):
        notes = [
            f"colour: evidence for the class '{of}' from {FLOOR:.0%} of the map's largest on; line: {CONTOUR:.0%}",
            "shows what the model used, not where the lesion is",
            *notes,
        ]
    elif any(panel.top is not None for panel in panels):
        notes = [f"no evidence for the class '{of}' in this image", *notes]
    text_width = max(int(font.getlength(text)) for text in [caption, *notes])
    width = max(_MARGIN + sum(panel.width(font) for panel in panels), text_width + 2 * _MARGIN)
    lower = upper + height + _MARGIN + (line if ruler else 0)
    page = Image.new("RGB", (width, lower + len(notes) * line + _MARGIN), _BLACK)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), caption, _WHITE, font)
    left = _MARGIN
    for panel in panels:
        draw.text((left, _MARGIN + line), panel.title, _GREY, font)
        page.paste(panel.picture, (left, upper))
        if panel.top is not None:
            _scale(page, draw, font, (left + panel.picture.width + _MARGIN, upper), height, panel)
        left += panel.width(font)
    if ruler:
        right, middle = _MARGIN + ruler.pixels, upper + height + line // 2
        draw.line((_MARGIN, middle, right, middle), _WHITE, 2)
        for end in (_MARGIN, right):
            draw.line((end, middle - 6, end, middle + 6), _WHITE, 2)
        draw.text((right + 10, middle), ruler.text, _WHITE, font, anchor="lm")
    for number, text in enumerate(notes):
        draw.text((_MARGIN, lower + number * line), text, _GREY, font)
    return page


def _scale(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: _Font,
    corner: tuple[int, int],
    height: int,
    panel: _Panel,
) -> None:
    """The colour bar from 0 to the largest evidence of the map, black where nothing is drawn."""
    top = panel.top or 0.0
    x, y = corner
    shades = np.linspace(1, 0, height)[:, None].repeat(_BAR, axis=1)
    page.paste(_image(colours(shades) * (shades >= (FLOOR if top > 0 else np.inf))[..., None]), corner)
    draw.rectangle((x, y, x + _BAR - 1, y + height - 1), outline=_GREY)
    for share in (0.0, FLOOR, CONTOUR, 1.0) if top > 0 else (0.0,):
        middle = y + (1 - share) * (height - 1)
        draw.line((x if share == CONTOUR else x + _BAR, middle, x + _BAR + 6, middle), _WHITE)
        draw.text((x + _BAR + 10, middle), f"{share * top:.2g}", _WHITE, font, anchor="lm")
    unit = "none" if top <= 0 else "" if panel.title in _UNITLESS else UNIT
    draw.text((x + _BAR + 10, y + _TEXT + 8), unit, _GREY, font, anchor="lm")
