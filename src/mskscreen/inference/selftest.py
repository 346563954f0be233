"""The self-test of a model file: a built-in image, and what the model gave for it when it was exported."""

from __future__ import annotations

import numpy as np

from mskscreen.contract import SelfTest
from mskscreen.inference.engines import Engine

IMAGE = "two-shafts-1"
# Largest difference, relative to the largest recorded value of an output. Engines round int8 differently.
TOLERANCE = {"f32": 1e-3, "int8": 0.3}
_KEPT = 64


def self_test_image(height: int, width: int) -> np.ndarray:
    """The image `two-shafts-1`, float32 (1, 1, height, width) in [0, 1]: two shafts, one broken, in soft tissue.

    A formula, so that it can be made at any size on any machine.
    """
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    tissue = np.exp(-((x / 0.7) ** 4))
    shafts = sum(
        0.5 * np.exp(-(((x - centre) / 0.16) ** 6)) * (1 - 0.4 * np.exp(-(((x - centre) / 0.07) ** 2)))
        for centre in (-0.28, 0.26)
    )
    fracture = np.exp(-(((y - 0.4 * x - 0.15) / 0.03) ** 2)) * (x < 0)
    trabeculae = 0.04 * np.sin(37 * x + 11 * y) * np.sin(29 * y - 5 * x)
    image = 0.25 * tissue + shafts * (1 - 0.7 * fracture) + trabeculae * tissue
    return np.clip(image, 0, 1).astype(np.float32)[None, None]


def record(engine: Engine) -> SelfTest:
    """What the model gives for the built-in image."""
    return SelfTest(IMAGE, outputs(engine))


def outputs(engine: Engine) -> dict[str, tuple[float, ...]]:
    """Outputs for the built-in image as float32 values, each thinned to at most 64 of its values."""
    found = engine.run(self_test_image(*engine.contract.input_size))
    thinned = {name: value.ravel()[:: -(-value.size // _KEPT)] for name, value in found.items()}
    return {name: tuple(map(float, value.astype(np.float32))) for name, value in thinned.items()}


def deviations(engine: Engine, recorded: SelfTest) -> dict[str, float]:
    """Difference of each recorded output, relative to its largest recorded value; infinite where none compares."""
    found = outputs(engine)
    result = {}
    for name, values in recorded.outputs.items():
        expected, now = np.array(values), np.array(found.get(name, ()))
        same = expected.shape == now.shape and expected.size > 0
        largest = float(np.abs(expected - now).max() / max(np.abs(expected).max(), 1e-6)) if same else np.inf
        result[name] = largest if np.isfinite(largest) else float("inf")
    return result
