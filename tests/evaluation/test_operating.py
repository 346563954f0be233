"""Operating points reach their targets, are chosen elsewhere, and PPV follows Bayes."""

import dataclasses

import numpy as np
import pytest

from mskscreen.errors import DataError
from mskscreen.evaluation import operating
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.labels import Labels, labels_from_paths, unlabelled
from mskscreen.evaluation.operating import Rule, choose
from mskscreen.evaluation.table import Table
from mskscreen.predictions import Predictions

from .conftest import make_cases, make_predictions


def table(seed, n=200):
    rng = np.random.default_rng(seed)
    labels = np.r_[True, False, rng.random(n - 2) < 0.4]
    return labels, np.round(1 / (1 + np.exp(-rng.normal(labels * 2 - 1, 1.3))), 2)


def rates(labels, p, threshold):
    calls = p >= threshold
    return calls[labels].mean(), (~calls)[~labels].mean()


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_does_better(seed):
    labels, p = table(seed)
    all_rates = [rates(labels, p, t) for t in np.linspace(0.001, 0.999, 999)]
    youden = choose(labels, p, Rule("youden"))
    assert sum(rates(labels, p, youden.threshold)) == pytest.approx(max(map(sum, all_rates)))
    sensitive = choose(labels, p, Rule("sensitivity", 0.9))
    assert sensitive.sensitivity >= 0.9
    assert sensitive.specificity == pytest.approx(max(sp for se, sp in all_rates if se >= 0.9))
    specific = choose(labels, p, Rule("specificity", 0.9))
    assert specific.specificity >= 0.9
    assert specific.sensitivity == pytest.approx(max(se for se, sp in all_rates if sp >= 0.9))
    cheap = choose(labels, p, Rule("cost", 5))

    def cost(se, sp):
        return 5 * labels.mean() * (1 - se) + (1 - labels.mean()) * (1 - sp)

    assert cost(*rates(labels, p, cheap.threshold)) == pytest.approx(min(cost(*r) for r in all_rates))


@pytest.mark.parametrize("seed", range(4))
def test_the_reported_rates_are_those_of_the_threshold(seed):
    labels, p = table(seed)
    for rule in (*operating.RULES.values(), Rule("cost", 3)):
        point = choose(labels, p, rule)
        assert (point.sensitivity, point.specificity) == pytest.approx(rates(labels, p, point.threshold))
        assert 0 < point.threshold < 1
        # Midway between two scores, so that rounding of a score changes no call.
        assert np.abs(p - point.threshold).min() >= 0.004


def test_a_target_is_reached_where_it_is_met_exactly():
    """1 - 21 / 300 is a little less than 0.93."""
    p = np.linspace(0.1, 0.9, 300)
    labels, scores = np.repeat([True, False], 300), np.r_[p, np.full(300, 0.95)]
    point = choose(labels, scores, Rule("sensitivity", 0.93))
    assert point.threshold == pytest.approx((p[20] + p[21]) / 2)
    assert point.sensitivity == 0.93


def test_of_equal_youden_indices_the_lowest_threshold_is_taken():
    """Calling 14 of 15 abnormal ones and 4 of 15 normal ones right is as good as 4 and 14."""
    p = np.r_[np.full(1, 0.1), np.full(10, 0.6), np.full(4, 0.9), np.full(4, 0.1), np.full(10, 0.6), [0.9]]
    point = choose(np.repeat([True, False], 15), p, Rule("youden"))
    assert point.threshold == pytest.approx(0.35)


def test_scores_of_zero_and_one_still_give_thresholds_inside():
    labels, p = np.array([True, False, True, False]), np.array([1.0, 0.0, 0.0, 1.0])
    for rule in operating.RULES.values():
        assert 0 < choose(labels, p, rule).threshold < 1


def test_one_class_has_no_operating_point():
    with pytest.raises(DataError, match="abnormal and normal"):
        choose(np.ones(5, bool), np.linspace(0, 1, 5), Rule("youden"))


def test_the_same_studies_are_refused_and_shared_patients_counted():
    cases = make_cases(60)
    with pytest.raises(DataError, match="60 studies are in both"):
        operating.require_apart(cases, cases)
    row = cases.table.study.index(cases.keys[1]) + 1
    with pytest.raises(DataError, match=rf"1 studies are in both .* \(rows {row} of predictions\)") as error:
        operating.require_apart(cases.select(np.array([0, 1])), cases.select(np.array([1, 2])))
    assert "patient" not in str(error.value)
    apart = operating.require_apart(cases.select(np.arange(30)), cases.select(np.arange(30, 60)))
    assert apart == len(set(cases.patient[:30]) & set(cases.patient[30:]))
    assert operating.fingerprint(cases) == operating.fingerprint(cases.select(np.arange(60)[::-1]))


def test_training_studies_are_refused_and_training_patients_counted():
    cases = make_cases(60)
    table = cases.table
    everything = labels_from_paths(table)
    with pytest.raises(DataError, match="60 studies are in both") as error:
        operating.require_not_trained_on(everything, cases)
    assert "patient" not in str(error.value)
    chosen = [i for i, key in enumerate(table.study) if key not in set(cases.keys[31:])]
    part = dataclasses.replace(
        everything,
        **{name: [getattr(everything, name)[i] for i in chosen] for name in ("image", "study", "patient")},
        label=everything.label[chosen],
        joint=everything.joint[chosen],
    )
    found = operating.require_not_trained_on(part, cases.select(np.arange(31, 60)))
    assert (found.studies, found.patients) == (31, len(set(cases.patient[:31])))
    assert found.shared_patients == len(set(cases.patient[:31]) & set(cases.patient[31:])) > 0
    nameless = dataclasses.replace(part, patient=[None] * len(chosen))
    assert operating.require_not_trained_on(nameless, cases.select(np.arange(31, 60))) == found


@pytest.mark.parametrize(("column", "learned", "not_learned"), [("split", "train", "valid"), ("fold", "1", None)])
def test_rows_of_a_manifest_that_no_training_takes_are_not_trained_on(column, learned, not_learned):
    cases = make_cases(60)
    everything = labels_from_paths(cases.table)
    judged = set(cases.keys[31:])
    column_of = {column: [not_learned if key in judged else learned for key in cases.table.study]}
    manifest = dataclasses.replace(everything, columns=column_of)
    found = operating.require_not_trained_on(manifest, cases.select(np.arange(31, 60)))
    assert found.studies == 31
    with pytest.raises(DataError, match="31 studies are in both"):
        operating.require_not_trained_on(manifest, cases)
    nobody = dataclasses.replace(everything, columns={column: [not_learned] * len(everything)}, name="m.parquet")
    with pytest.raises(DataError, match=r"m\.parquet: holds no image that was trained on"):
        operating.require_not_trained_on(nobody, cases)


def test_an_image_is_refused_where_the_training_list_names_no_studies():
    row = make_predictions(1).images[0]
    rows = (dataclasses.replace(row, file=f"{name}.dcm", study="1.2") for name in "ab")
    table = Table.of(Predictions(tuple(rows)))
    files = ["b.dcm", "c.dcm"]
    listed = Labels(files, files, [None] * 2, np.ones(2), np.full(2, -1), name="train.csv")
    with pytest.raises(DataError, match=r"1 images are in both train\.csv and .* \(rows 2 of "):
        operating.require_not_trained_on(listed, join(table, unlabelled(table)).cases())


def test_another_data_set_may_use_the_same_names_but_not_the_same_images():
    def with_digests(cases, prefix):
        digests = [f"{prefix}{i}" for i in range(len(cases.table))]
        return dataclasses.replace(cases, table=dataclasses.replace(cases.table, digest=digests))

    cases = make_cases(60)
    here, there = with_digests(cases, "a"), with_digests(cases, "b")
    assert operating.require_apart(here, there, other_set=True) == 0
    with pytest.raises(DataError, match="60 studies are in both"):
        operating.require_apart(here, there)
    with pytest.raises(DataError, match="without digests"):
        operating.require_apart(cases, cases, other_set=True)
    renamed = dataclasses.replace(here, keys=np.array([f"other {key}" for key in here.keys], object))
    with pytest.raises(DataError, match=rf"{len(cases.table)} images are in both .* \(rows 1, 2, ") as error:
        operating.require_apart(renamed, here, other_set=True)
    assert "patient" not in str(error.value)
    with pytest.raises(DataError, match="images are in both"):
        operating.require_apart(renamed, here)


def test_projection_at_the_prevalence_of_the_table_changes_nothing():
    labels, p = table(3)
    calls = p >= 0.5
    se, sp = rates(labels, p, 0.5)
    found = operating.projected(np.array([se]), np.array([sp]), labels.mean())
    assert found["ppv"][0] == pytest.approx(labels[calls].mean())
    assert found["npv"][0] == pytest.approx((~labels)[~calls].mean())
    rare = operating.projected(np.array([se]), np.array([sp]), 0.01)
    assert rare["ppv"][0] < found["ppv"][0]
    with pytest.raises(DataError, match="prevalence 2"):
        operating.projected(np.array([se]), np.array([sp]), 2)
