"""What stands around the anatomy on a plate: collimated fields, several exposures, markers and burned-in text.

Everything here is drawn from the stream `plate` and never sees the label, so that no border, letter or layout can
tell a normal study from an abnormal one. Images are float32 in [0, 1], bone bright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mskscreen.phantom.scene import Camera


@dataclass(frozen=True)
class Box:
    """The place of one exposure on the plate, in pixels."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array of the plate."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.columns)


@dataclass(frozen=True)
class Layout:
    """Size of the finished image and where its exposures lie."""

    rows: int
    columns: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Collimation:
    """The field of one exposure: distances of its four edges (or its radius) from the centre, as fractions.

    `edges` are left, right, top, bottom in fractions of the width and height; `radius` (fraction of the short
    side) makes a round field; `tilt` is in radians; `softness` the width of the penumbra in pixels at 512.
    """

    edges: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    tilt: float = 0.0
    radius: float | None = None
    softness: float = 2.0

    def coverage(self, rows: int, columns: int) -> np.ndarray:
        """Share of the beam that reaches each pixel: float32 (rows, columns), 1 inside the field."""
        x = np.arange(columns, dtype=np.float32)[None, :] - (columns - 1) / 2
        y = np.arange(rows, dtype=np.float32)[:, None] - (rows - 1) / 2
        if self.radius is not None:
            depth = self.radius * min(rows, columns) - np.hypot(x, y)
        else:
            cosine, sine = math.cos(self.tilt), math.sin(self.tilt)
            across, along = cosine * x + sine * y, cosine * y - sine * x
            left, right, top, bottom = self.edges
            depth = np.minimum(
                np.minimum(across + left * columns, right * columns - across),
                np.minimum(along + top * rows, bottom * rows - along),
            )
        penumbra = max(self.softness * max(rows, columns) / 512, 0.5)
        return np.clip(0.5 + depth / penumbra, 0, 1).astype(np.float32)


def sample_collimation(rng: np.random.Generator) -> Collimation:
    """Collimation as departments use it: open, along the edges, tight, tilted to the limb, rarely round."""
    style = rng.choice(("open", "loose", "tight", "round"), p=(0.42, 0.40, 0.13, 0.05))
    reach = {"open": (0.9, 1.2), "loose": (0.41, 0.56), "tight": (0.33, 0.45), "round": (1.0, 1.2)}[str(style)]
    left, right, top, bottom = rng.uniform(*reach, size=4)
    tilt = rng.normal(0, 0.04) if rng.random() < 0.85 else rng.uniform(-0.5, 0.5)
    radius = float(rng.uniform(0.44, 0.58))
    softness = float(rng.uniform(1.0, 5.0))
    return Collimation(
        (float(left), float(right), float(top), float(bottom)),
        float(tilt),
        radius if style == "round" else None,
        softness,
    )


_LONGEST = 2.0


def sample_layout(rng: np.random.Generator, shapes: Sequence[tuple[int, int]], long_side: int) -> Layout:
    """Place one to four exposures of the given (rows, columns) on a plate with the given long side.

    One exposure fills the image, or lies as a small field in a frame; several lie side by side, on top of each
    other, or four in a square.
    """
    framed = rng.random() < (0.12 if len(shapes) == 1 else 0.3)
    margin = rng.uniform(0.0, 0.22, size=4) if framed else np.zeros(4)
    gap = float(rng.uniform(0.0, 0.04))
    turn = rng.random()
    placed, width, height = _arranged([columns / rows for rows, columns in shapes], gap, turn)
    left, right, top, bottom = margin * np.repeat([width, height], 2)
    full_width, full_height = width + left + right, height + top + bottom
    scale = long_side / max(full_width, full_height)
    rows, columns = round(full_height * scale), round(full_width * scale)
    boxes = []
    for x, y, wide, high in placed:
        # Sums in another order may round to a pixel beyond the plate.
        x0, x1 = (min(round((left + edge) * scale), columns) for edge in (x, x + wide))
        y0, y1 = (min(round((top + edge) * scale), rows) for edge in (y, y + high))
        boxes.append(Box(y0, x0, y1 - y0, x1 - x0))
    return Layout(rows, columns, tuple(boxes))


Arrangement = tuple[list[tuple[float, float, float, float]], float, float]


def _arranged(aspects: list[float], gap: float, turn: float) -> Arrangement:
    """In a row, on top of each other or in two rows: any way that makes a plate of a usual shape."""
    half = (len(aspects) + 1) // 2
    ways = [[aspects], [[aspect] for aspect in aspects], [aspects[:half], aspects[half:]]]
    tried = sorted((_bands(way, gap) for way in ways if all(way)), key=lambda way: abs(math.log(way[1] / way[2])))
    usual = [way for way in tried if abs(math.log(way[1] / way[2])) < math.log(_LONGEST)] or tried[:1]
    return usual[int(turn * len(usual))]


def _bands(bands: list[list[float]], gap: float) -> Arrangement:
    """Rows of images of one height a row, all rows as wide as the widest: (x, y, width, height) of each."""
    width = max(sum(band) + gap * (len(band) - 1) for band in bands)
    placed, y = [], 0.0
    for band in bands:
        height = (width - gap * (len(band) - 1)) / sum(band)
        x = 0.0
        for aspect in band:
            placed.append((x, y, aspect * height, height))
            x += aspect * height + gap
        y += height + gap
    return placed, width, y - gap


def fitted(camera: Camera, rows: int, columns: int) -> Camera:
    """The same beam sampled by a detector of `rows` x `columns` that shows at least the same area."""
    stretch = max(camera.rows / rows, camera.columns / columns)
    centre = camera.origin + camera.du * (camera.columns - 1) / 2 + camera.dv * (camera.rows - 1) / 2
    du, dv = camera.du * stretch, camera.dv * stretch
    origin = centre - du * (columns - 1) / 2 - dv * (rows - 1) / 2
    return replace(camera, origin=origin, du=du, dv=dv, rows=rows, columns=columns)


def cropped(camera: Camera, window: tuple[slice, slice]) -> Camera:
    """The part of a camera's detector in a window of (rows, columns)."""
    rows, columns = window
    origin = camera.origin + camera.du * columns.start + camera.dv * rows.start
    return replace(camera, origin=origin, rows=rows.stop - rows.start, columns=columns.stop - columns.start)


LEAD_THICKNESS = 1.5e-3
_PLACES = 12
_CORNERS = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])


def lead_marker(rng: np.random.Generator, coverage: np.ndarray, anatomy: np.ndarray, letter: str) -> np.ndarray:
    """Lead thickness (metres) of a side marker near the edge of the field; zeros (rows, columns) without one.

    A radiographer lays it where it hides little of `anatomy` (rows, columns; more is worse), or now and then does
    not look.
    """
    rows, columns = coverage.shape
    size = int(rng.uniform(0.045, 0.085) * max(rows, columns))
    initials = "".join(rng.choice(list("ABCDEFGHJKMNPRSTUVW"), size=2))
    style, angle, direction = rng.random(3)
    drawn, mirrored, extra, careless = rng.random(4)
    lead = np.zeros((rows, columns), np.float32)
    if drawn < 0.35 or size < 5:
        return lead
    stamp = _stamp(letter, initials if extra < 0.4 else "", size, style)
    stamp = stamp.rotate(float(angle - 0.5) * (40 if extra < 0.9 else 360), expand=True)
    if mirrored < 0.06:
        stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turns = direction + np.arange(1 if careless < 0.08 else _PLACES) / _PLACES
    places = _near_edge(coverage, stamp.height, stamp.width, [2 * math.pi * float(turn) for turn in turns])
    top, left = min(places, key=lambda place: _under(anatomy, place, stamp))
    _paste(lead, np.asarray(stamp, np.float32) / 255 * LEAD_THICKNESS, top, left)
    return lead


def _under(anatomy: np.ndarray, place: tuple[int, int], stamp: Image.Image) -> float:
    """How much anatomy lies under a stamp, from every third pixel."""
    top, left = max(place[0], 0), max(place[1], 0)
    return float(anatomy[top : place[0] + stamp.height : 3, left : place[1] + stamp.width : 3].sum())


def _stamp(letter: str, initials: str, size: int, style: float) -> Image.Image:
    stamp = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(stamp)
    draw.text((size, 0.72 * size), letter, fill=255, font=_font(size), anchor="mm")
    if initials:
        draw.text((size, 1.45 * size), initials, fill=255, font=_font(max(size // 2, 4)), anchor="mm")
    line = max(1, size // 14)
    if style < 0.25:
        draw.rectangle((0.3 * size, 0.1 * size, 1.7 * size, 1.85 * size), outline=255, width=line)
    elif style < 0.45:
        draw.ellipse((0.3 * size, 0.02 * size, 1.7 * size, 1.42 * size), outline=255, width=line)
    return stamp


def _near_edge(coverage: np.ndarray, height: int, width: int, directions: list[float]) -> list[tuple[int, int]]:
    """Top left corners of a stamp pushed from the centre of the field towards `directions` as far as it fits."""
    rows, columns = coverage.shape
    way = np.arange(64) * max(rows, columns) / 64
    y = rows / 2 + np.outer([math.sin(direction) for direction in directions], way)
    x = columns / 2 + np.outer([math.cos(direction) for direction in directions], way)
    down = np.rint(y[..., None] + 0.4 * height * _CORNERS[:, 0]).astype(int)
    across = np.rint(x[..., None] + 0.4 * width * _CORNERS[:, 1]).astype(int)
    fits = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
    fits &= coverage[np.clip(down, 0, rows - 1), np.clip(across, 0, columns - 1)] > 0.5
    last = np.maximum(fits.all(axis=2).argmin(axis=1) - 1, 0)
    chosen = np.arange(len(directions)), last
    return [(int(top), int(left)) for top, left in zip(y[chosen] - height / 2, x[chosen] - width / 2, strict=True)]


def _paste(target: np.ndarray, stamp: np.ndarray, top: int, left: int) -> None:
    """Lay a stamp over `target` by the larger value, clipped at its borders."""
    rows, columns = target.shape
    r0, c0 = max(top, 0), max(left, 0)
    r1, c1 = min(top + stamp.shape[0], rows), min(left + stamp.shape[1], columns)
    if r1 > r0 and c1 > c0:
        part = target[r0:r1, c0:c1]
        np.maximum(part, stamp[r0 - top : r1 - top, c0 - left : c1 - left], out=part)


_PHRASES = ("PORTABLE", "STANDING", "SEATED", "TABLE", "RM 2", "55 KV", "60 KV 2.5 MAS", "S 200", "1 of 3")


def burn_text(image: np.ndarray, rng: np.random.Generator, letter: str, view: str) -> None:
    """Write into one image in six, in place, what workstations write: a side, the view, a time or a room."""
    rows, columns = image.shape
    present, size_share, value, both = rng.random(4)
    clock = f"{rng.integers(7, 20):02d}:{rng.integers(60):02d}"
    text = str(rng.choice((letter, f"{letter} {view}", view, clock, str(rng.choice(_PHRASES)))))
    corner = int(rng.integers(4))
    if present > 0.16:
        return
    size = max(int((0.018 + 0.03 * size_share) * max(rows, columns)), 6)
    lines = [text, clock] if both < 0.3 else [text]
    canvas = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    right, low = bool(corner & 1), bool(corner & 2)
    for i, line in enumerate(lines):
        y = rows - (len(lines) - i) * 1.3 * size - 3 if low else 3 + i * 1.3 * size
        draw.text(
            (columns - 4 if right else 4, y), line, fill=255, font=_font(size), anchor="ra" if right else "la"
        )
    ink = np.asarray(canvas, np.float32) / 255
    image += ink * (np.float32(0.75 + 0.25 * value) - image)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
