"""The last mile of an image: digitised film with its frame and scratches, bad exposure, and inverted polarity.

Functions take and return float32 images in [0, 1], bone bright. Draws never depend on the pixels, so the twins
of a pair, given generators of the same seed, get the same treatment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mskscreen.phantom.filters import bend


@dataclass(frozen=True)
class Medium:
    """What the image was made on and how well.

    `film` adds fog, dust, scratches and the frame of a scanned film; `dose` multiplies the detected
    quanta; `density` shifts the tone (positive is darker, as an over-exposed film); `gamma` bends it;
    `inverted` stores it with bone dark; `surround` is the displayed value outside the collimated field.
    """

    film: bool = False
    dose: float = 1.0
    density: float = 0.0
    gamma: float = 1.0
    inverted: bool = False
    surround: float = 0.0


def sample_medium(rng: np.random.Generator, film_like: bool) -> Medium:
    """Every second image of a film-like display is a scan of film; one image in seven is visibly over- or
    under-exposed and one in forty stored inverted.
    """
    scanned, bad, shutter, inverted = rng.random(4)
    dose = float(np.exp(rng.normal(0, 0.35)))
    density, gamma = rng.normal(0, 0.02), np.exp(rng.normal(0, 0.06))
    shift, bend, noise = rng.uniform(0.08, 0.22), rng.uniform(1.2, 1.7), rng.uniform(0.08, 0.3)
    clear, dark = rng.uniform(0.7, 0.95), rng.uniform(0.0, 0.05)
    if bad < 0.07:
        density, gamma, dose = shift, bend, 2.5 * dose
    elif bad < 0.14:
        density, gamma, dose = -shift, 1 / bend, noise * dose
    film = film_like and scanned < 0.5
    return Medium(
        film=film,
        dose=dose,
        density=float(density),
        gamma=float(gamma),
        inverted=bool(inverted < 0.025),
        surround=float(clear if shutter < (0.5 if film else 0.05) else dark),
    )


def develop(image: np.ndarray, medium: Medium, rng: np.random.Generator) -> np.ndarray:
    """The image as it looks on this medium, before any inversion: tone first, then the defects of film."""
    image = image.copy()
    if medium.gamma != 1 or medium.density:
        bend(image, np.float32(medium.gamma))
        image -= np.float32(medium.density)
    if medium.film:
        image = _film(np.clip(image, 0, 1, out=image), rng)
    return np.clip(image, 0, 1, out=image)


def _film(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    rows, columns = image.shape
    fog, top = rng.uniform(0.02, 0.1), rng.uniform(0.85, 0.97)
    image = np.float32(fog) + np.float32(top - fog) * image
    lamp = 1 - np.float32(rng.uniform(0, 0.12)) * np.linspace(-1, 1, columns, dtype=np.float32)[None, :] ** 2
    bright, weight = _marks(rng, rows, columns)
    return image * lamp * (1 - weight) + bright * weight


def _marks(rng: np.random.Generator, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Scratches, dust and the frame of the scan: displayed value and opacity, float32 (rows, columns)."""
    value, opacity = Image.new("L", (columns, rows)), Image.new("L", (columns, rows))
    ink, cover = ImageDraw.Draw(value), ImageDraw.Draw(opacity)
    long_side = max(rows, columns)

    for _ in range(int(rng.poisson(3))):
        start = rng.uniform(0, 1, 2) * (columns, rows)
        end = start + rng.normal(0, 0.25, 2) * long_side
        line = [tuple(start), tuple((start + end) / 2 + rng.normal(0, 0.01, 2) * long_side), tuple(end)]
        width, tone, strength = max(1, long_side // 700), int(rng.choice((20, 245))), int(rng.integers(50, 170))
        ink.line(line, fill=tone, width=width, joint="curve")
        cover.line(line, fill=strength, width=width, joint="curve")
    for x, y, size, tone in rng.uniform(0, 1, (int(rng.poisson(14)), 4)):
        radius = (0.0008 + 0.002 * size) * long_side
        spot = (x * columns - radius, y * rows - radius, x * columns + radius, y * rows + radius)
        ink.ellipse(spot, fill=250 if tone < 0.7 else 15)
        cover.ellipse(spot, fill=170)

    framed, light, round_corner = rng.random(3)
    margins, skew = rng.uniform(0.003, 0.045, 4), rng.uniform(-0.01, 0.01)
    if framed < 0.6:
        _frame(ink, cover, (rows, columns), margins, skew, 250 if light < 0.4 else 4, round_corner < 0.5)
    blocker = rng.uniform(0, 1, 4)
    if blocker[0] < 0.35:
        width, height = (0.16 + 0.1 * blocker[1]) * columns, (0.04 + 0.03 * blocker[1]) * rows
        x = 0.02 * columns if blocker[2] < 0.5 else 0.98 * columns - width
        y = 0.02 * rows if blocker[3] < 0.5 else 0.98 * rows - height
        ink.rectangle((x, y, x + width, y + height), fill=235)
        cover.rectangle((x, y, x + width, y + height), fill=225)
    as_share = [np.asarray(layer, np.float32) / 255 for layer in (value, opacity)]
    return as_share[0], as_share[1]


def _frame(
    ink: ImageDraw.ImageDraw,
    cover: ImageDraw.ImageDraw,
    shape: tuple[int, int],
    margins: np.ndarray,
    skew: float,
    tone: int,
    rounded: bool,
) -> None:
    """What the scanner saw beside the sheet of film, which lies a little askew."""
    rows, columns = shape
    left, right, top, bottom = margins * max(shape)
    shift = skew * max(shape)
    corners = [
        (left, top + shift),
        (columns - right - shift, top),
        (columns - right, rows - bottom - shift),
        (left + shift, rows - bottom),
    ]
    outside = Image.new("L", (columns, rows), 255)
    sheet = ImageDraw.Draw(outside)
    sheet.polygon(corners, fill=0)
    if rounded:
        size = 0.02 * max(shape)
        for x, y in corners:
            toward = (np.sign(columns / 2 - x), np.sign(rows / 2 - y))
            sheet.polygon([(x, y), (x + toward[0] * size, y), (x, y + toward[1] * size)], fill=255)
    ink.bitmap((0, 0), outside, fill=tone)
    cover.bitmap((0, 0), outside, fill=255)
