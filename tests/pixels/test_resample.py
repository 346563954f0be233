"""The resize of large images: what Pillow makes of them, from codes as from pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mskscreen.pixels.resample import look_up, resize


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((2500, 2000), (224, 224), None),
        ((1300, 1021), (256, 201), None),
        ((4000, 300), (256, 19), None),
        ((1100, 1000), (1099, 7), None),
        ((1251, 1001), (256, 205), (0.25, 0.25, 1000.5, 1250.25)),
        ((300, 4000), (19, 256), None),
        ((90, 12000), (224, 224), None),
        ((1_100_000, 1), (256, 1), None),
        ((40, 30), (224, 224), None),
        ((1, 1), (3, 5), None),
    ],
)
def test_it_is_pillows_resize(shape, size, box):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4096, shape, dtype=np.uint16)
    table = np.sort(rng.random(4096, np.float32))
    whole = Image.fromarray(table[codes]).resize(size[::-1], Image.Resampling.BILINEAR, box)
    expected = np.asarray(whole)
    # Pillow keeps a box in single precision.
    within = 1e-6 if box is None else 1e-4
    np.testing.assert_allclose(resize(codes, table, *size, box), expected, rtol=0, atol=within)
    np.testing.assert_allclose(resize(table[codes], None, *size, box), expected, rtol=0, atol=within)


def test_a_flat_image_stays_flat():
    flat = np.full((1500, 900), 0.7, np.float32)
    np.testing.assert_allclose(resize(flat, None, 224, 224), 0.7, rtol=0, atol=1e-6)


def test_looking_up_is_indexing():
    codes = np.random.default_rng(1).integers(0, 256, (700, 300), dtype=np.uint8)
    table = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_array_equal(look_up(table, codes[:, ::2]), table[codes[:, ::2]])


@pytest.mark.parametrize("step", [1, -1, 2])
def test_codes_of_eight_bits_are_looked_up_before_they_are_mixed(step):
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (300, 420), dtype=np.uint8)[:, ::step]
    table = rng.random(256, np.float32)
    np.testing.assert_array_equal(resize(codes, table, 96, 80), resize(table[codes], None, 96, 80))
