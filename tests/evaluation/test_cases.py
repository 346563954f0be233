"""The join of predictions and truth: keys, studies equal to the table's own, and what was left out is counted."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mskscreen.anatomy import JointType
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.keys import keys, study_key
from mskscreen.evaluation.labels import Labels, labels_from_paths, read_labels
from mskscreen.evaluation.table import Table, read_table
from mskscreen.predictions import Predictions

from .conftest import make_predictions


@pytest.mark.parametrize(
    "text",
    [
        "MURA-v1.1/valid/XR_HAND/patient11185/study1_positive/",
        "MURA-v1.1/valid/XR_HAND/patient11185/study1_positive/image1.png",
        "/somewhere/else/XR_HAND/patient11185/study1/image3.png",
        "XR_HAND/patient11185/study1",
        "MURA-v1.1\\valid\\XR_HAND\\patient11185\\study1_negative\\image1.png",
    ],
)
def test_every_name_of_a_mura_study_has_one_key(text):
    assert study_key(text) == "XR_HAND/patient11185/study1"


def test_a_file_name_tells_the_joint_that_the_study_leaves_out():
    assert keys("valid/XR_ELBOW/patient00001/study1_negative/image2.png", "patient00001/study1") == (
        "XR_ELBOW/patient00001/study1/image2.png",
        "XR_ELBOW/patient00001/study1",
    )
    assert keys("/dicom/0001", "1.2.826.0.1") == ("/dicom/0001", "1.2.826.0.1")


def test_study_cases_equal_the_study_rows_of_the_table(predictions):
    table = Table.of(predictions)
    cases = join(table, labels_from_paths(table)).cases()
    rows = {row.study: row for row in predictions.studies}
    assert len(cases) == len(rows)
    for i, key in enumerate(cases.keys):
        assert cases.p[i] == rows[key].p_abnormal
        assert tuple(cases.p_joint[i]) == rows[key].p_joint
        assert cases.joint[i] == JointType.from_mura(key.split("/")[0])


def test_the_order_of_the_rows_does_not_change_a_study(predictions):
    def by_key(rows):
        table = Table.of(dataclasses.replace(predictions, images=tuple(rows)))
        cases = join(table, labels_from_paths(table)).cases()
        return dict(zip(cases.keys, cases.p, strict=True))

    shuffled = np.random.default_rng(1).permutation(len(predictions))
    assert by_key(predictions.images) == by_key(predictions.images[i] for i in shuffled)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_columns(predictions, form, tmp_path):
    path = tmp_path / f"table.{form}"
    broken = make_predictions(30, errors=3)
    broken.write(path)
    found, expected = read_table(path), Table.of(broken)
    assert found.file == expected.file
    for name in ("p_abnormal", "p_joint", "pred1", "pred2"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_manifest_and_the_mura_csv_give_the_labels_of_the_folders(predictions, tmp_path):
    table = Table.of(predictions)
    expected = join(table, labels_from_paths(table)).cases()
    manifest = pa.table(
        {
            "image": [f"/data/{row.file}" for row in predictions],
            "study": [row.study for row in predictions],
            "patient": [row.patient for row in predictions],
            "joint": [row.study.split("/")[0].removeprefix("XR_").lower() for row in predictions],
            "view": [1] * len(predictions),
            "label": [int("positive" in row.file) for row in predictions],
            "split": ["valid"] * len(predictions),
        }
    )
    pq.write_table(manifest, tmp_path / "manifest.parquet")
    lines = {f"{row.file.rsplit('/', 1)[0]}/,{int('positive' in row.file)}\n" for row in predictions}
    (tmp_path / "labeled_studies.csv").write_text("".join(sorted(lines)))
    for name in ("manifest.parquet", "labeled_studies.csv"):
        cases = join(table, read_labels(tmp_path / name)).cases()
        np.testing.assert_array_equal(cases.labels, expected.labels)
        np.testing.assert_array_equal(cases.joint, expected.joint)
        np.testing.assert_array_equal(cases.patient, expected.patient)


def test_a_truth_without_the_column_names_those_that_look_like_it(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("file,joint,abnormal,seed,metal\na.png,hand,1,101,\nb.png,wrist,0,1,1\n")
    with pytest.raises(DataError, match=r"name --label-column abnormal or --label-column metal; it has file, "):
        read_labels(path)
    assert read_labels(path, label_column="abnormal").label.tolist() == [1, 0]
    path.write_text("file,finding\na.png,fracture\n")
    with pytest.raises(DataError, match=r"name that of labels with --label-column; it has file, finding"):
        read_labels(path)


def test_of_two_columns_of_one_name_none_is_taken_in_silence(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("study,label,label,,\nMURA/a,0,1,,\n")
    with pytest.raises(DataError, match=r"truth\.csv: two columns are named 'label'; rename one"):
        read_labels(path)


def labels(study, label, **columns):
    n = len(study)
    empty = {"image": [None] * n, "patient": [None] * n, "joint": np.full(n, -1)}
    return Labels(study=study, label=np.array(label, float), **empty | columns)


def test_studies_that_are_named_within_their_patients_keep_their_labels(tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("image,patient,study,label\nx/a.png,7,1,0\nx/b.png,7,1,0\ny/c.png,8,1,1\ny/d.png,8,2,0\n")
    row = make_predictions(1).images[0]
    places = [("x/a.png", "x"), ("x/b.png", "x"), ("y/c.png", "y"), ("y/d.png", "y2")]
    rows = tuple(dataclasses.replace(row, file=file, study=study) for file, study in places)
    cases = join(Table.of(Predictions(rows)), read_labels(truth)).cases()
    assert dict(zip(cases.keys, cases.labels.tolist(), strict=True)) == {"x": False, "y": True, "y2": False}


def test_what_is_left_out_is_counted():
    predictions = make_predictions(40, errors=4)
    table = Table.of(predictions)
    half = sorted({row.study for row in predictions})[:20]
    joined = join(table, labels([*half, "never predicted"], [0, 1] * 10 + [1]))
    flow = {step.what: step for step in joined.flow}
    assert flow["in the predictions table"].images == len(predictions)
    assert flow["left out: not scored, or the score is not a probability"].images == 4
    assert flow["labelled in the same split, but not predicted"].studies == 1
    total = sum(step.images for what, step in flow.items() if what.startswith(("left out", "evaluated")))
    assert total == len(predictions)


def test_a_study_of_both_labels_is_abnormal_and_said_so(predictions):
    table = Table.of(predictions)
    several = next(row for row in predictions.studies if row.images > 1).study
    files = [row.file for row in predictions if row.study == several]
    mixed = labels([several] * len(files), [1.0] + [0.0] * (len(files) - 1), image=files)
    joined = join(table, mixed)
    assert joined.cases().labels.tolist() == [True]
    assert joined.cases("image").labels.sum() == 1
    assert "both labels" in joined.notes[0]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_a_study_whose_images_are_labelled_one_by_one_is_abnormal_where_any_is(order, tmp_path):
    """A truth that names no studies leaves them to the table: UIDs, which no path of an image tells."""
    truth = tmp_path / "truth.csv"
    truth.write_text("image,study,label\na.dcm,,0\nb.dcm,,1\nc.dcm,,0\nd.dcm,4,0\n")
    row = make_predictions(1).images[0]
    places = [("a.dcm", "1.2"), ("b.dcm", "1.2"), ("c.dcm", "3"), ("d.dcm", "3")]
    rows = [dataclasses.replace(row, file=file, study=study) for file, study in places]
    joined = join(Table.of(Predictions(tuple(rows[i] for i in order))), read_labels(truth))
    cases = joined.cases()
    assert dict(zip(cases.keys, cases.labels.tolist(), strict=True)) == {"1.2": True, "3": False}
    assert joined.notes == (
        "1 studies hold images of both labels; a study is abnormal where any of its images is",
    )


def test_a_study_whose_images_differ_in_a_column_is_in_none_of_its_groups(predictions):
    table = Table.of(predictions)
    files = [row.file for row in predictions]
    views = [f.rsplit("/", 1)[-1] for f in files]
    sides = [f"side {len(row.study) % 2}" for row in predictions]
    columns = {"view": views, "side": sides}
    cases = join(table, labels(files, [0] * len(files), image=files, columns=columns)).cases()
    several = np.diff(cases.offsets) > 1
    assert set(cases.columns["view"][several]) == {"several"}
    assert set(cases.columns["view"][~several]) == {"image1.png"}
    assert set(cases.columns["side"]) == {"side 0", "side 1"}


def test_paths_of_other_data_sets_join_by_their_end():
    row = make_predictions(1).images[0]
    table = Table.of(Predictions((dataclasses.replace(row, file="/data/frac/images/a.jpg", study="images"),)))
    assert join(table, labels(["s"], [1.0], image=["images/a.jpg"])).cases().labels.tolist() == [True]
    with pytest.raises(DataError, match="none of its 1 images"):
        join(table, labels(["s"], [1.0], image=["other/a.jpg"]))


def test_an_image_has_the_label_of_its_own_row_and_not_of_its_study():
    """Relative paths in the labels, absolute ones in the table; one image is in no row, a study is whole."""
    places = [("S1", "a", "1.2.3"), ("S1", "b", "1.2.3"), ("S1", "c", "1.2.3"), ("S2", "a", "4"), ("S3", "a", "5")]
    row = make_predictions(1).images[0]
    rows = [
        dataclasses.replace(row, file=f"/data/{s}/{n}.dcm", study=study, patient="p") for s, n, study in places
    ]
    truth = labels(
        ["1.2.3", "1.2.3", "4", "5"],
        [0, 1, 1, 0],
        image=["S1/a.dcm", "S1/b.dcm", "a.dcm", None],
        patient=["p"] * 4,
        columns={"view": ["AP", "LAT", "AP", "PA"]},
    )
    found = join(Table.of(Predictions(tuple(rows))), truth)
    assert found.truth.tolist() == [0, 1, -1, 2, 3]
    images = found.cases("image")
    assert images.labels.tolist() == [False, True, True, False]
    assert images.columns["view"].tolist() == ["AP", "LAT", "AP", "PA"]


def test_scores_that_are_no_probability_are_left_out(predictions):
    rows = list(predictions.images)
    rows[0] = dataclasses.replace(rows[0], p_abnormal=float("nan"))
    rows[1] = dataclasses.replace(rows[1], p_abnormal=1.5)
    table = Table.of(dataclasses.replace(predictions, images=tuple(rows)))
    assert len(join(table, labels_from_paths(table)).cases("image")) == len(rows) - 2


def test_a_repeated_image_and_a_contradiction_are_refused(predictions):
    twice = dataclasses.replace(predictions, images=predictions.images[:3] * 2)
    with pytest.raises(DataError, match=r"occurs twice \(rows 1, 4\)"):
        join(Table.of(twice), labels_from_paths(Table.of(twice)))
    with pytest.raises(DataError, match="rows 1 and 2 label the same image differently"):
        join(Table.of(predictions), labels(["a", "a"], [0, 1], image=[predictions.images[0].file] * 2))
    one, other = (row.file for row in predictions.images[:2])
    unknown = labels(["a", "a", "b"], [np.nan, np.nan, 1], image=[one, one, other])
    assert len(join(Table.of(predictions), unknown).cases("image")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study,label\na,2\n", "row 1: label '2' is neither 0 nor 1"),
        ("study,truth\na,1\n", "no column 'label'"),
        ("study,label\na\n", "row 1 has 1 fields, not 2"),
        ("label,joint\n1,hand\n", "row 1 has neither a study nor an image"),
        ("", "the file is empty"),
        ("study,label\n", "it holds no row"),
    ],
)
def test_a_bad_label_file_is_one_clear_sentence(text, message, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(path)


def test_the_patient_is_of_the_labels_else_of_the_path_else_the_study(predictions):
    table = Table.of(predictions)
    named = labels([predictions.images[0].study], [1.0], patient=["P-1"])
    assert join(table, named).cases().patients == ["P-1"]
    nameless = dataclasses.replace(table, patient=[None] * len(table))
    assert join(nameless, labels([predictions.images[0].study], [1.0])).cases().patients == ["patient00001"]
