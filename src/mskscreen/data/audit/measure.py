"""What is measured of one image, and what is said of it for that.

Measuring reads the file and is done once; flags are thresholds on the measures, so they may change without reading
the files again. Flags name candidates for a look by eye, not verdicts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mskscreen.data.tree import Tree
from mskscreen.errors import DataError, DecodeError
from mskscreen.pixels import Preprocessing, read_radiograph

VERSION = 1
THUMB = 32
_SEEN = 256
# Rows and columns of the low-frequency block of the DCT that makes the hash.
_HASHED = 8


# How often `inverted` and `composite` are right: benchmarks/audit_flags.py.
class Flag(NamedTuple):
    """A finding about single images: when it is raised, and what it means in words."""

    raised: Callable[[dict[str, Any]], bool]
    meaning: str


FLAGS = {
    "unreadable": Flag(
        lambda m: m["error"] is not None, "cannot be decoded: missing, truncated, corrupt or no image at all"
    ),
    "tiny": Flag(lambda m: min(m["rows"], m["columns"]) < 100, "shorter side below 100 pixels"),
    "near-constant": Flag(lambda m: m["levels"] < 26, "99 % of the pixels lie within 26 levels of gray"),
    "colour": Flag(lambda m: m["colour"], "channels truly differ: a photograph, a screenshot or an annotation"),
    "inverted": Flag(
        lambda m: m["border"] > 0.1, "the border is brighter than the middle: bone may be dark (MONOCHROME1)"
    ),
    "composite": Flag(
        lambda m: m["gap"] > 0.01, "an empty band divides the image: several exposures on one plate"
    ),
}


def measure(tree: Tree, image: str) -> dict[str, Any]:
    """Measures of one image, ready for JSON; `error` says in one sentence why there are none.

    `modified` is when the file last changed, in nanoseconds, None where there is no file.
    `mean` is of the decoded values in [0, 1] and `levels` how many levels of gray lie between their 0.5th and
    99.5th percentile. The others are of the image as a model sees it, windowed and resized: `border` is how much
    brighter the border is than the middle, as a share of the range; `gap` the width of the widest empty band
    between two filled parts, as a share of the side; `hash` a perceptual hash of 64 bits (16 hexadecimal digits),
    `thumb` 32x32 bytes in base64. `pixels` is the SHA-256 of the decoded values.
    """
    _, modified = tree.size_and_time(image)
    try:
        radiograph = read_radiograph(tree.file(image))
    except (DecodeError, DataError) as error:
        return {"error": str(error), "modified": modified}
    pixels, record = radiograph.pixels, radiograph.record
    seen = Preprocessing(_SEEN, _SEEN)(radiograph)[0]
    thumb = np.asarray(Image.fromarray(seen).resize((THUMB, THUMB), Image.Resampling.BILINEAR))
    step = max(1, min(pixels.shape) // _SEEN)
    low, high = np.percentile(pixels[::step, ::step], (0.5, 99.5))
    return {
        "error": None,
        "modified": modified,
        "rows": record.rows,
        "columns": record.columns,
        "format": record.format,
        "mode": record.photometric,
        "bits": record.bits,
        "colour": any("colour" in warning for warning in record.warnings),
        "mean": round(float(pixels.mean()), 4),
        "levels": round(float(high - low) * (2**record.bits - 1)),
        "border": round(_border(thumb), 4),
        "gap": round(max(_gap(seen), _gap(seen.T)), 4),
        "hash": perceptual_hash(thumb),
        "pixels": hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest(),
        "thumb": base64.b64encode(np.rint(thumb.clip(0, 1) * 255).astype(np.uint8).tobytes()).decode(),
    }


def crashed(tree: Tree, image: str) -> dict[str, Any]:
    """The measure of an image on which the decoder died."""
    name = image.rpartition("/")[2]
    return {"error": f"{name}: the decoder crashed on this file", "modified": tree.size_and_time(image)[1]}


def flags_of(measured: dict[str, Any]) -> list[str]:
    """Names of the flags that the measures raise."""
    if measured["error"] is not None:
        return ["unreadable"]
    return [name for name, flag in FLAGS.items() if flag.raised(measured)]


def perceptual_hash(thumb: np.ndarray) -> str:
    """64 bits, as 16 hexadecimal digits: which low frequencies of `thumb` (n, n) are above their median.

    The frequencies are of the discrete cosine transform; the constant term is left out of the median, as in pHash
    (Zauner, 2010).
    """
    size = len(thumb)
    phase = np.pi / size * (np.arange(size) + 0.5)
    basis = np.cos(np.arange(_HASHED)[:, None] * phase)
    spectrum = (basis @ thumb.astype(np.float64) @ basis.T).ravel()
    bits = spectrum > np.median(spectrum[1:])
    return np.packbits(bits).tobytes().hex()


def _border(thumb: np.ndarray) -> float:
    """Median of the outer ring less that of the middle, as a share of the range."""
    spread = float(np.ptp(thumb))
    if spread == 0:
        return 0.0
    width, middle = THUMB // 16, slice(THUMB // 4, -THUMB // 4)
    ring = np.ones(thumb.shape, bool)
    ring[width:-width, width:-width] = False
    return float(np.median(thumb[ring]) - np.median(thumb[middle, middle])) / spread


def _gap(seen: np.ndarray) -> float:
    """Share of the columns that the widest band without content takes, between two parts that have content."""
    # A band that is black, or white, from top to bottom; a little noise and a marker's corner are not content.
    rows, columns = seen.shape
    ordered = np.sort(seen, axis=0)
    empty = ordered[int(rows * 0.98)] - ordered[int(rows * 0.02)] < 0.03
    edges = np.flatnonzero(np.diff(np.concatenate(([False], empty, [False])).astype(np.int8)))
    filled = np.cumsum(~empty)
    widest = 0
    for start, stop in edges.reshape(-1, 2):
        left, right = filled[start - 1] if start else 0, filled[-1] - filled[stop - 1]
        if min(left, right) >= columns * 0.15:
            widest = max(widest, int(stop - start))
    return widest / columns
