"""Measures of maps against truth and against the model, on cases whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score

from mskscreen.evaluation.explain.faithful import rank_in_box, to_input
from mskscreen.pixels import Geometry
from mskscreen.saliency.faithfulness import infidelity, insertion_deletion, road
from mskscreen.saliency.measures import (
    agreement,
    average_precision,
    fixed_level,
    otsu,
    overlaps,
    peak,
    pointing_game,
    random_map,
    rank_correlation,
    resample,
)

MASK = np.zeros((60, 100), bool)
MASK[20:30, 40:60] = True


def test_a_map_that_is_the_mask_is_perfect_and_its_opposite_is_not():
    perfect = agreement(MASK.astype(np.float32), MASK, 0.5)
    assert perfect == pytest.approx({"pointing": 1, "iou_otsu": 1, "iou_fixed": 1, "pixel_ap": 1, "energy": 1})
    worst = agreement(1 - MASK.astype(np.float32), MASK, 0.5)
    assert max(worst[name] for name in ("pointing", "iou_otsu", "iou_fixed", "energy")) == 0
    assert worst["pixel_ap"] < 0.05


def test_a_map_that_knows_nothing_has_the_share_of_the_mask():
    flat = agreement(np.ones((6, 10), np.float32), MASK)
    assert flat["energy"] == pytest.approx(MASK.mean())
    assert flat["pixel_ap"] == pytest.approx(MASK.mean())
    assert "iou_fixed" not in flat
    without_evidence = agreement(-np.ones((6, 10), np.float32), MASK, 0.5)
    assert max(without_evidence[name] for name in ("iou_otsu", "iou_fixed", "energy")) == 0


def test_pointing_has_a_tolerance_of_three_in_a_hundred():
    maps = []
    for column in (59, 62, 63):
        maps.append(np.zeros(MASK.shape))
        maps[-1][25, column] = 1
    assert pointing_game(maps, [MASK] * 3).tolist() == [True, True, False]


def test_measures_do_not_depend_on_the_scale_of_a_map():
    values = np.random.default_rng(0).random((12, 20)).astype(np.float32)
    one, other = agreement(values, MASK, 0.3), agreement(values * 1000, MASK, 0.3)
    assert one == pytest.approx(other, rel=1e-3)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60).filter(
        lambda x: any(b for _, b in x)
    )
)
def test_average_precision_and_ranks_are_those_of_other_libraries(pairs):
    scores, positive = np.array([a for a, _ in pairs], float), np.array([b for _, b in pairs])
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))
    if np.ptp(scores) and np.ptp(positive.astype(int)):
        expected = stats.spearmanr(scores, positive).statistic
        assert rank_correlation(scores, positive.astype(float)) == pytest.approx(expected)


def test_otsu_parts_two_heaps():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(1, 0.2, 500), rng.normal(4, 0.2, 200)]
    assert values[:500].max() <= otsu(values) + 0.02 < values[500:].min()


def test_the_fixed_level_is_the_one_that_fits_the_development_maps():
    y, x = np.mgrid[:60, :100]
    cone = np.maximum(0, 1 - np.hypot(y - 30, x - 50) / 30)
    assert fixed_level([overlaps(cone, cone > 0.6)] * 3) == pytest.approx(0.6)
    assert agreement(cone, cone > 0.6, 0.6)["iou_fixed"] > agreement(cone, cone > 0.6, 0.2)["iou_fixed"]


def test_large_masks_are_reduced_and_small_findings_survive():
    mask = np.zeros((3000, 2000), bool)
    mask[100:103, 50:53] = True
    values = np.zeros((300, 200), np.float32)
    values[10, 5] = 1
    found = agreement(values, mask)
    assert found["pointing"] == 1
    assert 0 < found["energy"] <= 1


def test_resampling_keeps_the_mean_where_cells_grow():
    values = np.random.default_rng(0).random((64, 32)).astype(np.float32)
    assert resample(values, 16, 8).mean() == pytest.approx(values.mean(), abs=1e-5)
    np.testing.assert_allclose(resample(values, 64, 32), values)


SIDE = 24
Y, X = np.mgrid[:SIDE, :SIDE]
WEIGHTS = np.exp(-((Y - 8) ** 2 + (X - 14) ** 2) / 18)
WEIGHTS /= WEIGHTS.sum()
PICTURE = (0.3 + 0.7 * np.exp(-((Y - 8) ** 2 + (X - 14) ** 2) / 8))[None].astype(np.float32)


def score(images):
    """What lies at one place raises the score."""
    return 12 * (np.einsum("nyx,yx->n", images[:, 0].astype(float), WEIGHTS) - 0.4)


RIGHT = WEIGHTS.astype(np.float32)
WRONG = np.roll(RIGHT, (12, -11), (0, 1))


def test_insertion_deletion_and_road_prefer_the_map_that_the_model_uses():
    good, bad = (insertion_deletion(score, PICTURE, values) for values in (RIGHT, WRONG))
    assert good["insertion"] > bad["insertion"] + 0.01
    assert good["deletion"] < bad["deletion"] - 0.05
    assert road(score, PICTURE, RIGHT) > road(score, PICTURE, WRONG) + 0.1


def test_infidelity_is_nothing_for_the_contributions_of_a_linear_score_whatever_their_scale():
    contributions = (12 * WEIGHTS * PICTURE[0]).astype(np.float32)
    found = infidelity(score, PICTURE, {"right": contributions, "scaled": 7 * contributions, "wrong": WRONG})
    assert found["right"] < 1e-4
    assert found["scaled"] == pytest.approx(found["right"], abs=1e-6)
    assert found["wrong"] > 0.05


def test_the_margin_of_a_letterbox_is_no_evidence():
    geometry = Geometry.letterbox(SIDE // 2, SIDE, SIDE, SIDE)
    box = slice(geometry.top, geometry.top + geometry.box_height)
    weights = (WEIGHTS - WEIGHTS.mean())[box]
    image = np.zeros_like(PICTURE)
    image[0, box] = 0.5
    exact = (weights * image[0, box]).astype(np.float32)

    def linear(images):
        return np.einsum("nyx,yx->n", images[:, 0, box].astype(float), weights)

    assert infidelity(linear, image, {"exact": to_input(geometry, exact)})["exact"] < 1e-6


def test_the_margin_of_a_letterbox_is_never_removed_and_shares_are_of_the_radiograph():
    geometry = Geometry.letterbox(SIDE, SIDE // 2, SIDE, SIDE)
    box = (slice(None), slice(geometry.left, geometry.left + geometry.box_width))
    image = np.zeros((1, SIDE, SIDE), np.float32)
    image[0][box] = 0.6
    ranked = to_input(geometry, np.random.default_rng(0).random((SIDE, SIDE // 2)), margin=np.nan)
    inside, margin = np.isfinite(ranked), []
    kept = []

    def watch(images):
        margin.append(images[:, 0][:, ~inside])
        kept.extend(images[:, 0][:, inside])
        return np.zeros(len(images))

    insertion_deletion(watch, image, ranked)
    bright = [float((one > 0.5).mean()) for one in kept]
    assert np.diff(bright[33:]) == pytest.approx(-1 / 32, abs=1 / inside.sum())
    kept.clear()
    road(watch, image, ranked)
    assert [float((one != np.float32(0.6)).mean()) for one in kept] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8] * 2, abs=0.01
    )
    assert not np.concatenate(margin).any()


def test_the_margin_makes_no_map_similar_to_the_counterfactual_one():
    found = {}
    for shape in ((320, 320), (320, 160)):
        geometry, rng = Geometry.letterbox(*shape, 64, 64), np.random.default_rng(0)
        columns = slice(geometry.left // 4, (geometry.left + geometry.box_width) // 4)
        correlations = []
        for seed in range(60):
            effect = np.zeros((16, 16))
            effect[:, columns] = rng.random((16, 16))[:, columns]
            correlations.append(rank_in_box(geometry, to_input(geometry, random_map(seed)), effect))
        found[shape] = np.mean(correlations)
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=0.06)
    sliver = Geometry.letterbox(320, 10, 64, 64)
    assert np.isnan(rank_in_box(sliver, np.zeros((64, 64), np.float32), np.zeros((16, 16))))


@given(st.integers(0, 6), st.integers(0, 6), st.sampled_from([Geometry.letterbox, Geometry.squash]))
def test_the_peak_of_a_map_of_cells_is_the_centre_of_its_highest_cell(row, column, fit):
    geometry = fit(1000, 800, 224, 224)
    cells = np.zeros((7, 7), np.float32)
    cells[row, column] = 1
    x, y = geometry.to_source((32 * column + 15.5, 32 * row + 15.5))
    if not 0 <= x < 800:
        # Of this cell only the slope beside the radiograph's edge is seen.
        x = np.clip(x, 0, 799)
    assert peak(geometry.map_to_source(cells)) == pytest.approx((y, x), abs=1)
