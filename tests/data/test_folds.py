"""No patient is ever in two folds, whoever the patients are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskscreen.data.folds import HELD_OUT_PART, held_out_rows, proof, split, training_rows
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError

JOINTS = ("elbow", "hand", "wrist", "knee", None)


def manifest(rows) -> Manifest:
    columns = ("patient", "joint", "label", "split")
    return Manifest.from_rows(
        "/nowhere",
        [
            {"image": f"{i}.png", "study": f"{row[0]}/{row[1]}", **dict(zip(columns, row, strict=True))}
            for i, row in enumerate(rows)
        ],
        "test",
    )


# Few names and many rows: patients under several joints, with both labels, in both splits, and huge ones.
rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.sampled_from([f"p{i}" for i in range(8)]), st.just("huge")),
        st.sampled_from(JOINTS),
        st.sampled_from([0, 1, None]),
        st.sampled_from(["train", "train", "train", "valid", "test", None]),
    ),
    max_size=80,
)


@pytest.mark.parametrize("column", ["joint", "bytes"])
def test_a_column_that_holds_no_labels_is_refused(column):
    data = manifest([(f"p{i}", "hand", i % 2, "train") for i in range(6)])
    data = data.replace({**data.columns, "bytes": range(6)})
    with pytest.raises(DataError, match=f"column '{column}': row . holds .*, which is no label"):
        split(data, folds=2, labels=column)


@given(rows, st.integers(2, 5), st.integers(0, 99))
def test_folds_are_disjoint_by_patient_and_leave_the_evaluation_set_alone(values, folds, seed):
    data = manifest(values)
    held_out = {group for group, name in zip(data.groups, data["split"], strict=True) if name in ("valid", "test")}
    usable = set(data.groups) - held_out
    if len(usable) < folds:
        with pytest.raises(DataError, match="cannot fill"):
            split(data, folds=folds, seed=seed)
        return
    result = split(data, folds=folds, seed=seed)
    where: dict[str, set] = {}
    for group, fold in zip(result.groups, result["fold"], strict=True):
        where.setdefault(group, set()).add(fold)
    assert all(len(found) == 1 for found in where.values())
    assert all(where[group] == {None} for group in held_out)
    assert {fold for group in usable for fold in where[group]} == set(range(folds))
    assert all(not row["patients_shared"] for row in proof(result))
    assert sum(row["images"] for row in proof(result)) == len(data)
    assert {name: result[name] for name in data.columns} == dict(data.columns)
    assert split(data, folds=folds, seed=seed)["fold"] == result["fold"]


def test_the_proof_finds_a_patient_that_was_put_in_two_folds():
    data = split(manifest([(f"p{i}", "hand", i % 2, "train") for i in range(20)]), folds=2)
    patients = list(data["patient"])
    patients[data["fold"].index(0)] = data["patient"][data["fold"].index(1)]
    shared = [row["patients_shared"] for row in proof(data.replace({**data.columns, "patient": patients}))]
    assert shared == [1, 1]


@pytest.mark.parametrize("how", [{"folds": 5}, {"development": 0.1}])
def test_every_joint_and_label_has_its_share_in_every_fold(published, how):
    data = split(published, seed=7, **how)
    fold, label = data.numbers("fold"), data.numbers("label")
    joint = np.array(data["joint"])
    train = fold >= 0
    assert [row["images"] for row in proof(data) if row["part"] == HELD_OUT_PART] == [3197]
    for k, share in enumerate([0.2] * 5 if "folds" in how else [0.1, 0.9]):
        for name in set(joint):
            for value in (0, 1):
                stratum = train & (joint == name) & (label == value)
                assert (fold[stratum] == k).mean() == pytest.approx(share, abs=0.01), (k, name, value)


def test_the_seed_decides(published):
    assert split(published, folds=5, seed=1)["fold"] != split(published, folds=5, seed=2)["fold"]


def test_training_rows_never_hold_the_fold_or_the_evaluation_set(published):
    data = split(published, development=0.1)
    training, development = training_rows(data, 0), held_out_rows(data, 0)
    assert not set(training) & set(development)
    assert {data["split"][i] for i in (*training, *development)} == {"train"}
    groups = np.array(data.groups)
    assert not set(groups[training]) & set(groups[development])
    with pytest.raises(DataError, match="no fold 9"):
        held_out_rows(data, 9)


def test_rows_without_patient_stay_together_by_study_or_alone():
    data = manifest([(None, "hand", 0, None), (None, "hand", 1, None), (None, "elbow", 1, None)])
    assert data.groups == ["study None/hand", "study None/hand", "study None/elbow"]


@pytest.mark.parametrize("how", [{}, {"folds": 1}, {"development": 0.0}, {"folds": 2, "development": 0.5}])
def test_impossible_folds_are_refused(how):
    with pytest.raises(DataError):
        split(manifest([("p", "hand", 1, "train"), ("q", "hand", 0, "train")]), **how)
