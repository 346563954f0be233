"""Paired tests agree with statsmodels and scipy, keep their level, and different studies are refused by row."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from mskscreen.errors import DataError
from mskscreen.evaluation import compare as room
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.compare import compare
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.metrics import ranking_statistic
from mskscreen.evaluation.table import Table
from mskscreen.predictions import Predictions


def other_model(predictions, noise=1.0, seed=9):
    """The same images scored with more noise."""
    rng = np.random.default_rng(seed)
    rows = [
        dataclasses.replace(
            row, p_abnormal=float(1 / (1 + np.exp(-np.log(row.p_abnormal / (1 - row.p_abnormal)) - z)))
        )
        for row, z in zip(predictions, rng.normal(0, noise, len(predictions)), strict=True)
    ]
    return dataclasses.replace(predictions, images=tuple(rows))


def cases_of(predictions):
    table = Table.of(predictions)
    return join(table, labels_from_paths(table)).cases()


def test_a_model_equals_itself(cases):
    pair = compare({"a": cases, "b": cases}, resamples=50).pairs[0]
    assert all(e.value in (0, None) for e in pair.differences.values())
    assert [test.p for test in pair.tests] == [1.0] * 4


def test_a_worse_model_is_found_and_the_sign_is_second_minus_first(predictions):
    worse = other_model(predictions, noise=4)
    models = {"good": cases_of(predictions), "worse": cases_of(worse)}
    pair = compare(models, resamples=400).pairs[0]
    assert pair.differences["auroc"].value < 0
    assert pair.differences["auroc"].interval[1] < 0
    assert all(test.p < 0.01 for test in pair.tests)
    turned = compare(dict(reversed(models.items())), resamples=400).pairs[0]
    assert turned.differences["auroc"].value == pytest.approx(-pair.differences["auroc"].value)
    assert turned.differences["auroc"].intervals["percentile"][0] > 0


def test_the_order_of_the_rows_is_no_difference(predictions):
    shuffled = Predictions(
        tuple(predictions.images[i] for i in np.random.default_rng(0).permutation(len(predictions)))
    )
    pair = compare({"a": cases_of(predictions), "b": cases_of(shuffled)}, resamples=20).pairs[0]
    assert pair.differences["auroc"].value == 0


def test_different_studies_are_refused_by_their_rows_and_never_by_name(cases):
    fewer = cases.select(np.arange(3, len(cases)))
    rows = [cases.table.study.index(key) + 1 for key in cases.keys]
    with pytest.raises(DataError, match=r"3 only in a .*, 0 only in b;") as error:
        compare({"a": cases, "b": fewer})
    assert f"(rows {rows[0]}, {rows[1]}, {rows[2]})" in str(error.value)
    labels = cases.labels ^ (np.arange(len(cases)) >= 5)
    with pytest.raises(DataError, match=f"labels of {len(cases) - 5} studies differ") as unlike:
        compare({"a": cases, "b": dataclasses.replace(cases, labels=labels)})
    assert f"(rows {rows[5]}, {rows[6]}, " in str(unlike.value)
    assert ", ... of a)" in str(unlike.value)
    assert "patient" not in f"{error.value}{unlike.value}"
    with pytest.raises(DataError, match="at least two"):
        compare({"a": cases})


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_agrees_with_statsmodels(seed):
    rng = np.random.default_rng(seed)
    one, other = rng.random(80) < 0.8, rng.random(80) < 0.6
    table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
    assert room.mcnemar(one, other) == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-12)


def test_holm_agrees_with_statsmodels():
    values = [0.04, 0.01, 0.2, 0.03]
    assert room.holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist(), abs=1e-12)
    assert room.holm([0.04, None, 0.01]) == pytest.approx([0.04, None, 0.02])


def test_delong_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(4)
    values = []
    for _ in range(400):
        labels = rng.random(120) < 0.5
        shared = rng.normal(labels * 1.0)
        values.append(room.delong_test(labels, shared + rng.normal(size=120), shared + rng.normal(size=120)))
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_the_bootstrap_over_patients_keeps_its_level_with_repeated_patients():
    rng = np.random.default_rng(6)
    patient = np.repeat(np.arange(40), 4)
    ones = np.ones((1, 160))
    rejected = {"bootstrap": 0, "independent": 0}
    for _ in range(200):
        # Scores are shared within a patient, as are the errors of both models.
        labels = np.repeat(rng.random(40) < 0.5, 4)
        scores = [labels + np.repeat(rng.normal(size=40), 4) + 0.1 * rng.normal(size=160) for _ in range(2)]
        draws = [ranking_statistic(labels, score, average=False) for score in scores]
        counts = rng.multinomial(40, np.full(40, 1 / 40), 200)[:, patient].astype(float)
        difference = draws[1](ones)["auroc"][0] - draws[0](ones)["auroc"][0]
        p = room.bootstrap_p(difference, draws[1](counts)["auroc"] - draws[0](counts)["auroc"])
        rejected["bootstrap"] += p <= 0.05
        rejected["independent"] += room.delong_test(labels, *scores) <= 0.05
    assert rejected["bootstrap"] <= stats.binom.ppf(0.999, 200, 0.05)
    assert rejected["independent"] > stats.binom.ppf(0.999, 200, 0.05)


def test_the_bootstrap_p_value_agrees_with_the_normal_one_and_may_be_undefined():
    replicates = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000, loc=2)
    assert room.bootstrap_p(2.0, replicates) == pytest.approx(2 * stats.norm.sf(2), abs=1e-3)
    assert room.bootstrap_p(0.0, np.zeros(100)) == 1
    assert room.bootstrap_p(1.0, np.where(np.arange(100) % 2, np.nan, 1.0)) is None
    assert room.bootstrap_p(np.nan, np.zeros(100)) is None


def test_the_kappa_permutation_keeps_its_level_with_repeated_patients():
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(40), 3)
    rejected = 0
    for _ in range(300):
        # Errors are shared within a patient: a test that took studies as independent would reject too often.
        labels = np.repeat(rng.random(40) < 0.5, 3)
        first, second = (labels ^ np.repeat(rng.random(40) < 0.25, 3) for _ in range(2))
        p = room.kappa_permutation(labels, first, second, patient, permutations=200)
        rejected += p <= 0.05
    assert rejected <= stats.binom.ppf(0.999, 300, 0.05)


def test_kappa_permutation_is_undefined_with_one_class():
    one = np.ones(10, bool)
    some = np.arange(10) < 7
    for labels in (one, ~one):
        for calls in (one, some):
            assert room.kappa_permutation(labels, one, calls, np.arange(10), permutations=20) is None


def test_three_models_give_three_pairs_with_corrected_p_values(predictions):
    models = {
        name: cases_of(other_model(predictions, noise, seed=i))
        for i, (name, noise) in enumerate([("a", 0.1), ("b", 1), ("c", 3)])
    }
    result = compare(models, resamples=30, permutations=200)
    assert [(pair.first, pair.second) for pair in result.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for k in range(4):
        raw = [pair.tests[k].p for pair in result.pairs]
        assert [pair.tests[k].adjusted for pair in result.pairs] == pytest.approx(
            multipletests(raw, method="holm")[1]
        )


@pytest.mark.parametrize("names", [("soft", "calls"), ("calls", "soft")])
def test_scores_and_calls_are_compared_in_either_order(cases, names):
    called = dataclasses.replace(cases.table, hard=True)
    models = {"soft": cases, "calls": dataclasses.replace(cases, table=called, p=(cases.p >= 0.4).astype(float))}
    pair = compare({name: models[name] for name in names}, resamples=20, permutations=20).pairs[0]
    assert {test.name: test.p for test in pair.tests}["Bootstrap by patient"] is None
    assert pair.differences["auroc"].value is None
    assert pair.differences["kappa"].value is not None
