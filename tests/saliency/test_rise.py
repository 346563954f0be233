"""RISE and occlusion on scores whose true map is known."""

import tracemalloc

import numpy as np
import pytest

from mskscreen.evaluation.explain import explainer
from mskscreen.saliency.patches import counterfactual, occlusion
from mskscreen.saliency.rise import Settings, rise

SIDE = 48


def weighted(weights):
    """A score that adds up the pixels by `weights`, and counts its calls."""
    seen = []

    def score(images):
        seen.append(len(images))
        return np.einsum("nyx,yx->n", images[:, 0].astype(np.float64), weights)

    return score, seen


def spot(row, column, radius=5.0):
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2 / radius**2) / 100


IMAGE = np.ones((1, SIDE, SIDE), np.float32)


@pytest.mark.parametrize("place", [(12, 12), (36, 15), (24, 40)])
@pytest.mark.parametrize("fine", [False, True])
def test_the_peak_is_where_the_score_comes_from(place, fine):
    found = rise(weighted(spot(*place))[0], IMAGE, Settings(passes=1024, bound=0, fine=fine))
    peak = np.unravel_index(found.values.argmax(), found.values.shape)
    assert np.hypot(*np.subtract(peak, place)) < SIDE / 10


def test_fine_is_sharper_than_coarse():
    small = spot(20, 30, 1.5)
    widths = []
    for fine in (False, True):
        values = rise(weighted(small)[0], IMAGE, Settings(passes=2048, bound=0, fine=fine)).values
        widths.append((values > values.max() / 2).sum())
    assert widths[1] < 0.6 * widths[0]


def test_what_is_everywhere_equal_has_no_map_although_the_score_is_large():
    # Plain RISE gives the mean score everywhere; a conditional difference gives what each place adds.
    constant = rise(lambda images: np.full(len(images), 100.0), IMAGE, Settings(passes=512, bound=0)).values
    assert np.abs(constant).max() == 0
    even = rise(weighted(np.full((SIDE, SIDE), 1 / SIDE**2))[0], IMAGE, Settings(passes=4096, bound=0)).values
    assert even.std() < 0.2 * even.mean()


def test_design_leaves_less_noise_than_independent_masks():
    weights = np.random.default_rng(0).random((SIDE, SIDE)) / SIDE**2 * 50
    runs = [
        rise(weighted(weights)[0], IMAGE, Settings(passes=512, seed=seed, bound=0)).values for seed in range(6)
    ]
    rng = np.random.default_rng(1)
    plain = []
    for _ in range(6):
        masks = rng.integers(0, 2, (512, 8, 8)).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2).astype(np.float32)
        scores = weighted(weights)[0](masks[:, None])
        shown = np.einsum("n,nyx->yx", scores, masks) / masks.sum(0)
        hidden = np.einsum("n,nyx->yx", scores, 1 - masks) / (1 - masks).sum(0)
        plain.append(shown - hidden)
    assert np.std(runs, axis=0).mean() < 0.5 * np.std(plain, axis=0).mean()


def test_the_seed_decides_the_map():
    score = weighted(spot(10, 30))[0]
    one, same, other = (
        rise(lambda x: np.tanh(score(x)), IMAGE, Settings(512, seed=seed, bound=0)) for seed in (3, 3, 4)
    )
    assert np.array_equal(one.values, same.values)
    assert not np.array_equal(one.values, other.values)


def test_stops_when_converged_and_the_stated_error_is_true():
    noise = np.random.default_rng(0)
    score = weighted(spot(24, 24))[0]

    def noisy(images):
        return score(images) + noise.normal(0, 0.3, len(images))

    found = rise(noisy, IMAGE, Settings(passes=50_000, bound=0.1))
    assert 512 <= found.passes < 50_000
    assert found.error <= 0.1 * np.abs(found.values).max()
    runs = np.stack([rise(noisy, IMAGE, Settings(1024, seed=seed, bound=0)).values for seed in range(20)])
    stated = [rise(noisy, IMAGE, Settings(1024, seed=seed, bound=0)).error for seed in range(20)]
    # The largest error of any pixel is above that of a typical pixel and of its size.
    assert 0.8 < np.mean(stated) / np.std(runs, axis=0).max() < 2.5


def test_budget_and_cost_are_what_was_said():
    score, seen = weighted(spot(24, 24))
    spent = []
    found = rise(score, IMAGE, Settings(passes=300, bound=0), spent.append)
    assert found.passes == sum(seen) == sum(spent) == 384
    assert max(seen) <= 64


def test_memory_does_not_grow_with_the_number_of_masks():
    peaks = []
    for passes in (512, 4096):
        tracemalloc.start()
        rise(lambda images: np.zeros(len(images)), IMAGE, Settings(passes, bound=0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize("fine", [False, True])
def test_the_passes_that_it_may_spend_are_known_beforehand(fine):
    for passes in (2, 128, 130, 300):
        settings = Settings(passes, bound=0, fine=fine)
        assert rise(weighted(spot(12, 12))[0], IMAGE, settings).passes == settings.most
        assert explainer.Settings(settings).most_passes("rise") == settings.most


def test_it_is_told_whether_the_map_converged():
    noise = np.random.default_rng(0)
    noisy = lambda images: noise.normal(size=len(images))  # noqa: E731
    assert rise(noisy, IMAGE, Settings(passes=512)).converged is False
    assert rise(noisy, IMAGE, Settings(passes=2)).converged is False
    assert rise(weighted(spot(12, 12))[0], IMAGE, Settings(bound=0.5)).converged is True
    assert rise(noisy, IMAGE, Settings(passes=512, bound=0)).converged is None


def test_occlusion_finds_the_place_and_counts_its_passes():
    image = IMAGE * 0.5
    image[0, :8] = 0
    score, seen = weighted(spot(36, 15))
    found = occlusion(score, image, 8)
    assert found.passes == sum(seen)
    scale = SIDE / found.values.shape[0]
    peak = (np.array(np.unravel_index(found.values.argmax(), found.values.shape)) + 0.5) * scale
    assert np.hypot(*(peak - (36, 15))) < 8


def test_the_counterfactual_map_is_the_effect_of_what_differs_and_costs_no_more():
    twin = IMAGE.copy()
    twin[0, 20:26, 30:35] = 0
    score, _ = weighted(np.ones((SIDE, SIDE)))
    found = counterfactual(score, IMAGE, twin, 16)
    assert found.values.sum() == pytest.approx(30)
    rows, columns = np.nonzero(found.values)
    assert {rows.min(), rows.max()} == {6, 8}
    assert {columns.min(), columns.max()} == {10, 11}
    assert found.passes == 1 + 3 * 2
