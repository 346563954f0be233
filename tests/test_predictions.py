"""The predictions table: it reads back as it was written, and studies follow from images."""

import dataclasses
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mskscreen
from mskscreen.anatomy import JOINT_LABELS
from mskscreen.contract import Calibration, ModelContract, Novelty, Provenance
from mskscreen.errors import DataError
from mskscreen.evaluation.table import read_table
from mskscreen.predictions import (
    FLAG_LOW_CONFIDENCE,
    FLAG_NOVEL,
    FORMATS,
    Prediction,
    Predictions,
    StudyPrediction,
    is_table,
    score,
    softmax,
    studies,
)

CONTRACT = ModelContract("m", "a", "p", (8, 8), operating_points={"balanced": 0.25})
finite = st.floats(-30, 30)
# A file name may hold anything but the end of a string; an empty text cannot be told from none in CSV.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


@st.composite
def rows(draw: st.DrawFn) -> Prediction:
    row = Prediction(draw(texts), draw(st.sampled_from(["s1", "s2", "s3"])), patient=draw(st.none() | texts))
    if draw(st.booleans()):
        return dataclasses.replace(row, flags=("error",), error=draw(texts))
    raw1, raw2 = np.array(draw(st.tuples(*[finite] * 2))), np.array(draw(st.tuples(*[finite] * 7)))
    return dataclasses.replace(row, **score(CONTRACT, raw1, raw2, novelty=draw(st.none() | finite)), digest="ab")


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(rows(), max_size=5))
def test_every_format_reads_back_as_written(form: str, tmp_path: Path, images: list[Prediction]) -> None:
    table = Predictions(tuple(images), {"name": "m", "contract": "c", "more": [1]}, 0.25)
    path = tmp_path / f"table.{form}"
    table.write(path)
    again = Predictions.read(path)
    assert again.images == table.images
    if images or form in ("json", "parquet"):
        assert (again.model["name"], again.model["contract"], again.threshold) == ("m", "c", 0.25)
        assert again.studies == table.studies
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=40)
@given(st.lists(rows(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_views_does_not_change_a_study(images: list[Prediction], shuffler: random.Random) -> None:
    shuffled = shuffler.sample(images, len(images))
    # The patient is that of the first view: views of one study share it.
    images, shuffled = ([dataclasses.replace(row, patient="p") for row in rows] for rows in (images, shuffled))
    by_name = {row.study: row for row in studies(images, 0.5)}
    assert {row.study: row for row in studies(shuffled, 0.5)} == by_name


def test_the_order_of_many_views_does_not_change_the_last_digit() -> None:
    rng = np.random.default_rng(0)
    views = [Prediction(str(i), "s", **score(CONTRACT, *np.split(rng.normal(0, 3, 9), [2]))) for i in range(60)]
    orders = [rng.permutation(60) for _ in range(20)]
    assert len({studies([views[i] for i in order], 0.5)[0] for order in orders}) == 1


@settings(max_examples=40)
@given(st.lists(rows(), min_size=1, max_size=8))
def test_a_study_counts_every_view_and_lies_between_its_extremes(images: list[Prediction]) -> None:
    table = studies(images, 0.5)
    assert sum(row.images for row in table) == len(images)
    assert sum(row.errors for row in table) == sum(row.error is not None for row in images)
    for study in table:
        views = [row.p_abnormal for row in images if row.study == study.study and row.p_abnormal is not None]
        assert (study.p_abnormal is None) == (not views)
        if study.p_abnormal is not None:
            last_digit = 1e-15 * max(views)
            assert min(views) - last_digit <= study.p_abnormal <= max(views) + last_digit
            assert study.abnormal == (study.p_abnormal >= 0.5)


@given(st.lists(finite, min_size=2, max_size=7), st.floats(0.1, 10))
def test_softmax_is_a_distribution_that_keeps_the_order(scores: list[float], temperature: float) -> None:
    p = softmax(np.array(scores), temperature)
    assert p.sum() == pytest.approx(1)
    assert (np.diff(p[np.argsort(scores, kind="stable")]) >= 0).all()


def test_scores_are_calibrated_and_the_flags_follow_the_contract() -> None:
    contract = dataclasses.replace(
        CONTRACT,
        calibration=Calibration(2.0, 4.0),
        novelty=Novelty("mahalanobis", 3.0, 0.99),
        operating_points={"balanced": 0.5, "sensitive": 0.6},
    )
    raw1, raw2 = np.array([0.0, np.log(4.0)]), np.array([0.0, 0, 0, 8.0, 0, 0, 0])
    row = score(contract, raw1, raw2, at="sensitive", novelty=4.0)
    assert row["p_abnormal"] == pytest.approx(2 / 3)
    assert row["abnormal"]
    assert row["joint"] == JOINT_LABELS[3]
    assert max(row["p_joint"]) == pytest.approx(np.exp(2) / (6 + np.exp(2)))
    assert row["flags"] == (FLAG_NOVEL,)
    assert score(contract, raw1, raw2 / 8)["flags"] == (FLAG_LOW_CONFIDENCE,)
    with pytest.raises(DataError, match="balanced, sensitive"):
        score(contract, raw1, raw2, at="specific")
    with pytest.raises(DataError, match="not finite"):
        score(contract, raw1 * np.nan, raw2)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "[1]"),
        ("a.json", "{}"),
        ("a.json", '{"model": {}, "images": [{}]}'),
        ("a.json", '{"model": {}, "images": [3]}'),
        ("a.json", '{"model": [], "images": []}'),
        ("a.json", '{"model": {"threshold": "x"}, "images": []}'),
        ("a.jsonl", "{"),
        ("a.json", "[" * 100_000),
        ("a.jsonl", '{"file": "f"}'),
        ("a.csv", "file,study\nf,s"),
        ("a.jsonl", '{"file": "f", "study": "s", "p_joint": [1, 2]}'),
        ("a.jsonl", '{"file": "f", "study": "s", "pred1": ["a", "b"]}'),
        ("a.csv", "file,study,abnormal,p_joint\nf,s,True,[["),
        ("a.csv", "file,study,p_abnormal\nf,s,[0.5]"),
        ("a.csv", "file,study,p_abnormal,threshold\nf,s,0.5,NaN"),
        ("a.csv", "file,study,p_abnormal,threshold\nf,s,0.5,50"),
        *(
            ("a.jsonl", json.dumps({"file": "f", "study": "s", "p_abnormal": 0.5} | field))
            for field in ({"p_abnormal": "0.5"}, {"novelty": "far"}, {"abnormal": "no"}, {"flags": "error"})
        ),
        ("a.parquet", "no"),
        ("a.txt", ""),
    ],
)
def test_a_file_that_is_no_table_is_one_error_with_its_name(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=name):
        Predictions.read(path)


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("a.csv", "file;study;p_abnormal\nf;s;0.5", "p_abnormal"),
        ("a.jsonl", '{"study": "s"}', "file"),
        ("a.json", "{}", "images"),
    ],
)
def test_a_field_that_is_missing_is_named(tmp_path: Path, name: str, content: str, field: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=f"{name}: not a predictions table .*field '{field}' is missing"):
        Predictions.read(path)


def test_the_table_says_the_order_of_its_probabilities(tmp_path: Path) -> None:
    row = Prediction("f", "s", **score(CONTRACT, np.zeros(2), np.eye(7)[4]))
    for form in ("json", "parquet"):
        Predictions((row,)).write(tmp_path / f"a.{form}")
        table = Predictions.read(tmp_path / f"a.{form}")
        assert table.model["joints"][np.argmax(table.images[0].p_joint or ())] == table.images[0].joint == "hand"


def test_the_page_names_every_column_every_flag_and_the_order_of_the_joints() -> None:
    page = (Path(__file__).parents[1] / "docs" / "predictions.md").read_text()
    source = Path(mskscreen.__file__).parent
    raised = {
        flag
        for path in source.rglob("*.py")
        for flag in re.findall(r'^FLAG_\w+ = "([\w-]+)"$', path.read_text(), re.MULTILINE)
    }
    assert {"error", "constant-image"} < raised
    columns = {field.name for kind in (Prediction, StudyPrediction) for field in dataclasses.fields(kind)}
    columns |= json.loads(Predictions((Prediction("f", "s"),)).dumps("jsonl")).keys()
    assert [name for name in sorted(raised | columns) if f"`{name}`" not in page] == []
    assert set(re.findall(r"^\| `([\w-]+)` \|", page.split("## Flags")[1], re.MULTILINE)) == raised
    assert ", ".join(JOINT_LABELS) in page


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_rows_of_two_tables_are_not_one_table(tmp_path: Path, form: str) -> None:
    tables = [Predictions((Prediction("f", "s"),), {"name": name}, at) for name, at in [("m", 0.4), ("m", 0.5)]]
    one, other = (table.dumps(form) for table in tables)
    path = tmp_path / f"both.{form}"
    path.write_text(one + (other.split("\n", 1)[1] if form == "csv" else other))
    with pytest.raises(DataError, match=r"both.*column 'threshold' differs"):
        Predictions.read(path)


@pytest.mark.parametrize("form", FORMATS)
def test_a_threshold_that_contradicts_the_calls_is_refused(tmp_path: Path, form: str) -> None:
    calls = [(0.4, False), (0.49, True), (None, None)]
    rows = [Prediction(str(i), "s", p_abnormal=p, abnormal=call) for i, (p, call) in enumerate(calls)]
    path = tmp_path / f"a.{form}"
    for threshold, agrees in [(0.39, False), (0.4, False), (0.41, True), (0.49, True), (0.5, False)]:
        Predictions(tuple(rows), {}, threshold).write(path)
        for read in (Predictions.read, read_table):
            if agrees:
                assert read(path).threshold == threshold
            else:
                with pytest.raises(DataError, match=rf"a\.{form}: threshold {threshold} contradicts"):
                    read(path)


def test_calls_without_their_threshold_are_refused_where_the_usual_one_contradicts_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file,study,p_abnormal,abnormal\na,a,0.491,True\nb,b,0.3,False\n")
    with pytest.raises(DataError, match=r"a\.csv: holds no threshold, and 0\.5 contradicts .* 0\.491 abnormal"):
        Predictions.read(path)
    path.write_text("file,study,p_abnormal,abnormal,threshold\na,a,0.491,True,0.4\nb,b,0.3,False,0.4\n")
    assert Predictions.read(path).threshold == 0.4


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
def test_calls_of_a_csv_are_read_however_their_capitals_are(yes: str, no: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"file,study,p_abnormal,abnormal\na,a,0.6,{yes}\nb,b,0.3,{no}\nc,c,,\n")
    assert [row.abnormal for row in Predictions.read(path)] == [True, False, None]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "saved by a spreadsheet"])
def test_probabilities_alone_are_a_table(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{mark}file,study,p_abnormal\na,s,0.6\nb,s,0.2\n", encoding="utf-8")
    table = Predictions.read(path)
    assert [row.p_abnormal for row in table] == [0.6, 0.2]
    assert (table.threshold, table.model) == (0.5, {})


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json"):
        Predictions.read(tmp_path / "gone.json")


def test_columns_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"file": "f", "study": "s", "later": 1}) + "\n")
    assert Predictions.read(path).images == (Prediction("f", "s"),)


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="xlsx"):
        Predictions(()).write(tmp_path / "a.xlsx")
    assert not list(tmp_path.iterdir())
    for form in ("xlsx", "parquet"):
        with pytest.raises(DataError, match=f"'{form}', which is no text"):
            Predictions(()).dumps(form)


SAID = {"abnormality": ("p_abnormal", "abnormal", "pred1"), "joint": ("joint", "p_joint", "pred2")}


@pytest.mark.parametrize(("learned", "other"), [("joint", "abnormality"), ("abnormality", "joint")])
def test_a_task_that_was_not_learned_has_no_say_in_images_and_studies(
    learned: str, other: str, tmp_path: Path
) -> None:
    contract = dataclasses.replace(
        CONTRACT, provenance=Provenance(protocol={"tasks": learned}), joint_confidence=0.9
    )
    fields = score(contract, np.zeros(2), np.zeros(7))
    images = (Prediction("a", "s", **fields), Prediction("b", "s", **fields), Prediction("c", "s", error="empty"))
    table = Predictions(images, {"name": "m"}, 0.5)
    (study,) = table.studies
    assert (study.images, study.errors) == (3, 1)
    for name in SAID[other]:
        assert getattr(images[0], name) is None
        assert getattr(study, name, None) is None
    for name in SAID[learned]:
        assert getattr(images[0], name) is not None
    assert study.flags == ((FLAG_LOW_CONFIDENCE,) if learned == "joint" else ())
    for form in FORMATS:
        table.write(tmp_path / f"table.{form}")
        assert Predictions.read(tmp_path / f"table.{form}").images == images
        assert read_table(tmp_path / f"table.{form}").silent == (learned == "joint")


def test_a_table_is_told_from_other_files_of_its_suffix(tmp_path: Path) -> None:
    table = Predictions((Prediction("a", "s", p_abnormal=0.3, abnormal=False),), {"name": "m"}, 0.5)
    for form in FORMATS:
        table.write(tmp_path / f"table.{form}")
        assert is_table(tmp_path / f"table.{form}")
    (tmp_path / "labels.csv").write_text("study,label\ns,1\n")
    (tmp_path / "none.parquet").write_bytes(b"p_abnormal")
    (tmp_path / "table.png").write_bytes((tmp_path / "table.csv").read_bytes())
    assert not any(is_table(tmp_path / name) for name in ("labels.csv", "none.parquet", "table.png", "absent.csv"))
