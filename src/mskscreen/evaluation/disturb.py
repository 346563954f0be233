"""Disturbances of the pixels of a radiograph, for the robustness table."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np

Disturbance = Callable[[np.ndarray], np.ndarray]


def _jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def apply(pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer), np.float32) / 255

    return apply


def _rotated(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        turned = Image.fromarray(pixels.astype(np.float32)).rotate(degrees, Image.Resampling.BILINEAR)
        return np.asarray(turned, np.float32)

    return apply


def _noise(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(pixels: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(pixels.shape)
        return np.clip(pixels + rng.normal(0, sigma, pixels.shape), 0, 1).astype(np.float32)

    return apply


def _contrast(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.clip((pixels - 0.5) * factor + 0.5, 0, 1).astype(np.float32)


def _turned(quarters: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.ascontiguousarray(np.rot90(pixels, quarters))


# Pixels (rows, columns) in [0, 1], bone bright, to the same.
DISTURBANCES: Mapping[str, Disturbance] = {
    "polarity inverted": lambda pixels: (1 - pixels).astype(np.float32),
    "rotated by 5 degrees": _rotated(5),
    "rotated by 15 degrees": _rotated(15),
    "turned by 90 degrees": _turned(1),
    "turned by 180 degrees": _turned(2),
    "turned by 270 degrees": _turned(3),
    "JPEG, quality 75": _jpeg(75),
    "JPEG, quality 40": _jpeg(40),
    "contrast x 0.7": _contrast(0.7),
    "contrast x 1.3": _contrast(1.3),
    "noise, sigma 0.02": _noise(0.02),
    "noise, sigma 0.05": _noise(0.05),
}
