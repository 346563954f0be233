"""Agreement of many raters: against statsmodels, scikit-learn and Gwet's published example, and its bootstrap."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from mskscreen.evaluation.agreement import UNRATED, crossed, rater_statistic

# Gwet, Handbook of Inter-Rater Reliability (2014), table 2.10: 12 subjects, 4 raters, 5 categories, 0 = not rated.
GWET = np.array(
    [
        *([1, 1, 0, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4]),
        *([4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [0, 5, 5, 5], [0, 0, 1, 1], [0, 0, 3, 0]),
    ]
)


def of(ratings, categories, subjects=None, raters=None):
    n, m = ratings.shape
    values = rater_statistic(ratings, categories)(
        np.ones((1, n)) if subjects is None else np.array([subjects], float),
        np.ones((1, m)) if raters is None else np.array([raters], float),
    )
    return {name: float(value[0]) for name, value in values.items()}


def noisy(n=60, m=4, categories=3, error=0.3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(categories, size=(n, 1))
    return np.where(rng.random((n, m)) < error, rng.integers(categories, size=(n, m)), truth)


def test_the_published_example_with_missing_ratings():
    found = of(GWET - 1, 5)
    assert found["agreement"] == pytest.approx(0.8181818, abs=1e-7)
    assert found["fleiss"] == pytest.approx(0.7611693, abs=1e-6)
    assert found["ac1"] == pytest.approx(0.7754441, abs=1e-6)


@pytest.mark.parametrize("categories", [2, 4])
def test_complete_ratings_agree_with_statsmodels_and_scikit_learn(categories):
    ratings = noisy(categories=categories)
    found = of(ratings, categories)
    table, _ = aggregate_raters(ratings, categories)
    assert found["fleiss"] == pytest.approx(fleiss_kappa(table, method="fleiss"), abs=1e-12)
    pairs = [cohen_kappa_score(ratings[:, i], ratings[:, j]) for i, j in combinations(range(4), 2)]
    assert found["cohen"] == pytest.approx(np.mean(pairs), abs=1e-12)
    share = table.mean(axis=0) / 4
    chance = (share * (1 - share)).sum() / (categories - 1)
    agreement = np.mean([ratings[:, i] == ratings[:, j] for i, j in combinations(range(4), 2)])
    assert found["agreement"] == pytest.approx(agreement, abs=1e-12)
    assert found["ac1"] == pytest.approx((agreement - chance) / (1 - chance), abs=1e-12)


def test_weights_of_subjects_are_copies_of_them_and_a_rater_never_meets_itself():
    ratings = noisy()
    counts = np.random.default_rng(1).integers(0, 3, len(ratings))
    copies = of(np.repeat(ratings, counts, axis=0), 3)
    assert of(ratings, 3, subjects=counts) == pytest.approx(copies, abs=1e-12)
    assert of(ratings, 3, raters=[1, 0, 2, 0])["agreement"] == pytest.approx(
        of(ratings[:, [0, 2]], 3)["agreement"]
    )
    assert all(np.isnan(value) for value in of(ratings, 3, raters=[3, 0, 0, 0]).values())


def test_kappa_is_undefined_and_ac1_is_one_where_all_always_say_the_same():
    found = of(np.ones((5, 3), int), 2)
    assert np.isnan(found["cohen"])
    assert np.isnan(found["fleiss"])
    assert found["agreement"] == found["ac1"] == 1
    assert all(np.isnan(value) for value in of(np.full((5, 3), UNRATED), 2).values())


def test_who_always_says_the_same_counts_against_the_mean_kappa_like_any_other():
    ratings = noisy(m=2)
    kappa = cohen_kappa_score(*ratings.T)
    same = np.zeros(len(ratings), int)
    assert of(np.column_stack([ratings[:, 0], same]), 3)["cohen"] == cohen_kappa_score(ratings[:, 0], same) == 0
    assert of(np.column_stack([ratings, same]), 3)["cohen"] == pytest.approx(kappa / 3)
    # Both always say the same: other answers leave 0 for chance, one answer is 0/0.
    assert of(np.column_stack([ratings, same, same + 1]), 3)["cohen"] == pytest.approx(kappa / 6)
    assert of(np.column_stack([ratings, same, same]), 3)["cohen"] == pytest.approx(kappa / 5)


def test_the_interval_knows_of_other_readers_and_of_other_cases():
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, (40, 1)) + rng.normal(0, 0.5, (1, 8))

    def mean(cases, readers):
        return {"mean": np.einsum("rn,nm,rm->r", cases, values, readers) / cases.sum(1) / readers.sum(1)}

    found = crossed(mean, 40, 8, resamples=4000)["mean"]
    width = found.interval.high - found.interval.low
    expected = 2 * 1.96 * np.sqrt(values.mean(axis=1).var() / 40 + values.mean(axis=0).var() / 8)
    assert width == pytest.approx(expected, rel=0.08)
    assert found.value == pytest.approx(values.mean())


def test_with_three_readers_agreement_still_has_an_interval_that_holds_it():
    found = crossed(rater_statistic(noisy(m=3), 3), 60, 3, resamples=400, least=2)
    for name, estimate in found.items():
        assert estimate.interval.low < estimate.value < estimate.interval.high, name
