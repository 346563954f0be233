"""Contact sheets: many phantoms on one picture, their masks outlined and their facts in the caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mskscreen.errors import DataError
from mskscreen.phantom.manifest import Row

# What JPEG can hold a side, and half a gigabyte of RGB.
_LONGEST, _MOST_PIXELS = 65_500, 170_000_000
_CAPTION = 26
_GAP = 4
_PAPER, _INK, _OUTLINE = (38, 38, 44), (235, 225, 140), (255, 70, 60)


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows at even distances, or all if there are fewer."""
    if len(rows) <= count:
        return list(rows)
    return [rows[i * len(rows) // count] for i in range(count)]


def contact_sheet(
    folder: Path, rows: Sequence[Row], *, columns: int = 8, cell: int = 240, pairs: bool = False
) -> Image.Image:
    """Draw the images of `rows`, each in a square of `cell` pixels under two lines of caption.

    With `pairs` every row must have a twin, which is drawn on the right. Raises DataError if there are no rows or
    the sheet would be larger than 65,500 pixels a side or 170 million in all.
    """
    if not rows:
        raise DataError("no image of this data set fits what was asked for")
    columns = min(columns, len(rows))
    wide = 2 * cell if pairs else cell
    width, height = wide + _GAP, cell + _CAPTION + _GAP
    size = columns * width, -(-len(rows) // columns) * height
    if max(size) > _LONGEST or math.prod(size) > _MOST_PIXELS:
        raise DataError(
            f"a sheet of {size[0]:,} x {size[1]:,} pixels is too large; choose a smaller --cell or fewer --images"
        )
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for index, row in enumerate(rows):
        x, y = index % columns * width, index // columns * height
        for line, text in enumerate(_caption(row)):
            draw.text((x + 2, y + 1 + 12 * line), text[: wide // 5], fill=_INK, font=font)
        picture = outlined(folder, row, cell)
        place = x + (cell - picture.width) // 2, y + _CAPTION
        sheet.paste(picture, place)
        if pairs:
            sheet.paste(_shrunk(folder / str(row.twin), cell), (place[0] + cell, place[1]))
    return sheet


def outlined(folder: Path, row: Row, size: int) -> Image.Image:
    """One image of a data set, shrunk to fit `size` pixels, with its mask outlined."""
    picture = _shrunk(folder / row.image, size)
    if row.mask is None:
        return picture
    with Image.open(folder / row.mask) as stored:
        mask = np.asarray(stored.resize(picture.size, Image.Resampling.BOX)) > 40
    pixels = np.array(picture)
    # One pixel of clear space keeps the outline off what it surrounds.
    pixels[_grown(_grown(mask)) & ~_grown(mask)] = _OUTLINE
    return Image.fromarray(pixels)


def _shrunk(path: Path, size: int) -> Image.Image:
    with Image.open(path) as stored:
        picture = stored.convert("RGB")
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def _grown(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _caption(row: Row) -> tuple[str, str]:
    first = f"{row.joint} {row.views}, {row.laterality}, {row.age_group}"
    if not row.label:
        return first, f"normal  {row.variants}"
    seen = "occult" if row.occult else f"k {row.visibility:.0f}"
    return first, f"{row.subkind or row.kind} {row.bone or ''}, {seen}"
