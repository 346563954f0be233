"""The evidence map drawn over its radiograph: for a person to look at, never for a decision."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mskscreen.anatomy import ABNORMALITY_LABELS, NOT_FOR_DIAGNOSIS

LONG_SIDE = 720
OPACITY = 0.7
_MARGIN, _TEXT, _BAR = 20, 20, 24
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


def draw_overlay(pixels: npt.NDArray, evidence: npt.NDArray, caption: str) -> Image.Image:
    """The radiograph beside itself under its evidence map, with the scale and what the picture is not.

    `pixels` (rows, columns) lie in [0, 1]; `evidence` (rows, columns), of the same frame at any resolution, is
    the contribution to the score of the class abnormal. Only evidence above 0 is coloured, from 0 to the largest
    of this image, the more opaque the stronger: colours of two pictures cannot be compared, their scales can.
    """
    rows, columns = pixels.shape
    factor = LONG_SIDE / max(rows, columns)
    width, height = max(1, round(columns * factor)), max(1, round(rows * factor))
    grey = _resized(pixels, width, height)[..., None] * np.full(3, 255, np.float32)
    positive = np.maximum(_resized(evidence, width, height), 0)
    top = float(positive.max())
    relative = positive / top if top > 0 else positive
    weight = OPACITY * np.sqrt(relative)[..., None]
    coloured = (1 - weight) * grey + weight * colours(relative)
    return _page(_image(grey), _image(coloured), top, caption)


def colours(values: npt.NDArray) -> npt.NDArray[np.float32]:
    """RGB (..., 3) in [0, 255] of values in [0, 1]."""
    steps = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.interp(values, steps, channel) for channel in _VIRIDIS.T], axis=-1).astype(np.float32)


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


def _image(values: npt.NDArray) -> Image.Image:
    return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))


def _page(plain: Image.Image, coloured: Image.Image, top: float, caption: str) -> Image.Image:
    """Both pictures, the colour bar to their right, one line above and three below."""
    font = ImageFont.load_default(_TEXT)
    line = _TEXT + 8
    upper = _MARGIN + line + _MARGIN // 2
    left = 2 * _MARGIN + plain.width
    notes = [
        f"colour: evidence for the class '{ABNORMALITY_LABELS[1]}', its contribution to the score"
        if top > 0
        else f"no evidence for the class '{ABNORMALITY_LABELS[1]}' in this image",
        "shows what the model used, not where the lesion is",
        NOT_FOR_DIAGNOSIS,
    ]
    ruler = ImageDraw.Draw(plain)
    text_width = max(int(ruler.textlength(text, font)) for text in [caption, *notes])
    bar = left + coloured.width + _MARGIN
    page_width = max(bar + _BAR + 5 * _TEXT, text_width + 2 * _MARGIN)
    page = Image.new("RGB", (page_width, upper + plain.height + _MARGIN + len(notes) * line + _MARGIN), _BLACK)
    page.paste(plain, (_MARGIN, upper))
    page.paste(coloured, (left, upper))
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN), caption, _WHITE, font)
    for number, text in enumerate(notes):
        draw.text((_MARGIN, upper + plain.height + _MARGIN + number * line), text, _GREY, font)
    _scale(page, draw, font, (bar, upper), plain.height, top)
    return page


def _scale(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    corner: tuple[int, int],
    height: int,
    top: float,
) -> None:
    """The colour bar, 0 at its foot and the largest evidence of the image at its head."""
    x, y = corner
    shades = np.linspace(1, 0, height)[:, None].repeat(_BAR, axis=1)
    page.paste(_image(colours(shades)), corner)
    for share in (0.0, 0.5, 1.0) if top > 0 else (0.0,):
        middle = y + (1 - share) * (height - 1)
        draw.line((x + _BAR, middle, x + _BAR + 6, middle), _WHITE)
        draw.text((x + _BAR + 10, middle), f"{share * top:.2g}", _WHITE, font, anchor="lm")
