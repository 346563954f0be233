"""Rose's criterion on pairs made in code, where k is known."""

import numpy as np
import pytest

from mskscreen.phantom.visibility import rose_k


def noisy(deviation: float, shape: tuple[int, int] = (300, 300)) -> np.ndarray:
    return (0.5 + deviation * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def disc(radius: float, shape: tuple[int, int] = (300, 300)) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (x - 150) ** 2 + (y - 140) ** 2 <= radius**2


@pytest.mark.parametrize(("contrast", "radius", "deviation"), [(0.1, 10, 0.05), (0.02, 30, 0.1), (-0.3, 4, 0.2)])
def test_a_uniform_disc_in_white_noise_has_the_textbook_k(contrast, radius, deviation):
    twin, mask = noisy(deviation), disc(radius)
    image = twin + np.float32(contrast) * mask
    expected = abs(contrast) * mask.sum() ** 0.5 / deviation
    assert rose_k(image, twin, mask) == pytest.approx(expected, rel=0.12)


def test_nothing_to_see_is_zero():
    twin = noisy(0.1)
    assert rose_k(twin, twin, disc(10)) == 0
    assert rose_k(twin + 0.1, twin, np.zeros(twin.shape, bool)) == 0


def test_a_window_that_moves_as_a_whole_is_not_seen():
    twin, mask = noisy(0.05), disc(12)
    assert rose_k(twin + np.float32(0.2), twin, mask) < 0.1
    seen = rose_k(twin + np.float32(0.1) * mask, twin, mask)
    assert rose_k(twin + np.float32(0.1) * mask + np.float32(0.2), twin, mask) == pytest.approx(seen, rel=1e-3)


def test_anatomy_hides_what_plain_tissue_shows():
    twin, mask = noisy(0.02), disc(12)
    busy = twin + np.float32(0.3) * (np.arange(300) % 20 < 10)
    bump = np.float32(0.1) * mask
    assert rose_k(busy + bump, busy, mask) < 0.3 * rose_k(twin + bump, twin, mask)


@pytest.mark.parametrize(("long_side", "factor"), [(350, 2), (500, 2), (512, 4)])
def test_more_pixels_of_the_same_picture_do_not_make_it_more_visible(long_side, factor):
    shape = (long_side, 300)
    twin, mask = noisy(0.05, shape), disc(12, shape)
    image = twin + np.float32(0.1) * mask
    larger = [np.kron(array, np.ones((factor, factor), array.dtype)) for array in (image, twin, mask)]
    assert rose_k(*larger) == pytest.approx(rose_k(image, twin, mask), rel=1e-3)
