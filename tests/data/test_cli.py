"""The verbs of `mskscreen data`: exit codes, outputs, and nothing of a patient on stderr."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from image_files import copy_of_mura
from mura_lists import Study, write_lists
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.data.audit.noise import study_probabilities
from mskscreen.data.audit.result import read_audit
from mskscreen.data.manifest import Manifest
from mskscreen.predictions import Prediction, Predictions

run = CliRunner().invoke
STUDIES = [Study("XR_HAND", f"patient{i:05d}", 1, i % 2, 2) for i in range(1, 21)]


@pytest.fixture
def index(tmp_path):
    root = write_lists(tmp_path, STUDIES)
    path = tmp_path / "index.parquet"
    result = run(app, ["data", "index", str(root), "-o", str(path), "--format", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["images"] == 40
    return path


def test_index_with_a_refused_line_exits_3_and_names_it_without_the_patient(tmp_path):
    root = write_lists(tmp_path, STUDIES)
    with (root / "train_image_paths.csv").open("a") as stream:
        stream.write("../patient99999_positive.png\n")
    result = run(app, ["--quiet", "data", "index", str(root), "-o", str(tmp_path / "index.parquet")])
    assert result.exit_code == 3
    assert "train_image_paths.csv:41" in result.stderr
    assert "patient9" not in result.output
    assert "positive" not in result.output


def test_every_finding_can_be_had_by_file_and_line(tmp_path):
    root = write_lists(tmp_path, STUDIES)
    file = root / "train_labeled_studies.csv"
    file.write_text(file.read_text().replace(",1\n", ",?\n"))
    arguments = [
        "data",
        "index",
        str(root),
        "-o",
        str(tmp_path / "i.parquet"),
        "--findings",
        str(tmp_path / "f.csv"),
    ]
    assert run(app, arguments).exit_code == 3
    lines = (tmp_path / "f.csv").read_text().splitlines()
    assert lines[0] == "finding,file,line,refused"
    refused = [f"label other than 0 or 1,train_labeled_studies.csv,{line},1" for line in range(1, 21, 2)]
    assert [line for line in lines if line.endswith(",1")] == refused
    assert "patient" not in "".join(lines)


def test_index_can_hash(tmp_path):
    root = write_lists(tmp_path, STUDIES[:1])
    assert run(app, ["data", "index", str(root), "-o", str(tmp_path / "i.parquet"), "--sha256"]).exit_code == 0
    assert len(Manifest.read(tmp_path / "i.parquet")["sha256"][0]) == 64


def test_check_of_the_published_lists_is_exact_and_of_others_is_not(published, tmp_path):
    path = tmp_path / "index.parquet"
    published.write(path)
    exact = run(app, ["data", "check", str(path), "--lists-only"])
    assert exact.exit_code == 0, exact.output
    assert "all counts are exact" in exact.stderr
    missing = run(app, ["data", "check", str(path)])
    assert missing.exit_code == 3
    assert "40,005 listed images are not on disk" in missing.stderr
    labels = list(published["label"])
    row = next(i for i, split in enumerate(published["split"]) if split == "valid" and labels[i])
    folder = published["image"][row].rpartition("/")[0]
    in_study = [i for i, image in enumerate(published["image"]) if image.startswith(folder)]
    for i in in_study:
        labels[i] = 0
    published.replace({**published.columns, "label": labels}).write(path)
    changed = run(app, ["data", "check", str(path), "--lists-only", "--format", "json"])
    assert changed.exit_code == 3
    differing = {(r["split"], r["joint"], r["measure"]): r["difference"] for r in json.loads(changed.stdout)}
    assert differing["valid", "elbow", "positive_studies"] == -1
    assert differing["valid", "elbow", "negative_images"] == len(in_study)
    assert differing["train", "elbow", "negative_studies"] == 0


def test_check_reads_a_folder_and_names_what_a_part_lacks(tmp_path):
    root = write_lists(tmp_path, STUDIES)
    assert "negative/positive" in run(app, ["data", "check", str(root)]).stdout
    result = run(app, ["data", "check", str(root), "--format", "json"])
    assert result.exit_code == 3
    assert "the split valid is absent" in result.stderr
    found = {(r["split"], r["joint"], r["measure"]): r["found"] for r in json.loads(result.stdout)}
    assert [found["train", "hand", f"{kind}_images"] for kind in ("negative", "positive")] == [20, 20]


def test_split_proves_that_no_patient_is_shared(index, tmp_path):
    out = tmp_path / "folds.parquet"
    result = run(app, ["data", "split", str(index), "-o", str(out), "--folds", "4", "--format", "json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["part"] for row in rows] == [f"fold {k}" for k in range(4)]
    assert [row["patients_shared"] for row in rows] == [0] * 4
    assert set(Manifest.read(out)["fold"]) == {0, 1, 2, 3}


def test_an_input_that_is_no_manifest_is_one_sentence(tmp_path, index):
    index.write_bytes(b"PAR1")
    result = run(app, ["data", "split", str(index)])
    assert result.exit_code == 1
    assert "not a whole manifest" in str(result.exception)


def test_cache_builds_once_and_says_which_rows_failed(tmp_path):
    manifest = copy_of_mura(tmp_path / "copy", 3)
    (manifest.root / manifest["image"][4]).write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    run(app, ["data", "index", str(manifest.root), "-o", str(tmp_path / "index.parquet")])
    arguments = ["data", "cache", str(tmp_path / "index.parquet"), "-o", str(tmp_path / "cache"), "--size", "16"]
    first = run(app, ["--quiet", *arguments, "--workers", "1", "--format", "json"])
    assert first.exit_code == 3
    assert "row 4 of the manifest" in first.stderr
    assert "patient" not in first.stderr
    assert json.loads(first.stdout)[0]["failed"] == 1
    assert "16x16-squash-uint8-" in json.loads(first.stdout)[0]["cache"]
    assert "nothing to do" in run(app, [*arguments, "--workers", "1"]).stderr


def test_overlay_adds_a_label_set_and_lists_split_studies(index, tmp_path):
    file = tmp_path / "changed.txt"
    file.write_text(f"MURA-v1.1/{STUDIES[1].files[0]}\nMURA-v1.1/absent\n")
    out = tmp_path / "overlay.parquet"
    arguments = ["data", "overlay", str(index), str(file), "-o", str(out), "--name", "better", "--listed-as", "1"]
    result = run(app, [*arguments, "--format", "json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout)[1] == {"labels": "label_better", "0": 18, "1": 22, "None": 0}
    assert "changed.txt:1: a study of 2 images now has 1 abnormal; resolved to 1" in result.stderr
    assert "changed.txt:2" in result.stderr
    assert "patient" not in result.output
    assert list(Manifest.read(out)["label"]).count(1) == 20


def test_audit_with_a_model_and_predictions(tmp_path, tiny_model):
    manifest = copy_of_mura(tmp_path, 12, 1, rows=120, columns=110)
    manifest.write(tmp_path / "index.parquet")
    images = [
        Prediction(str(manifest.root / image), str(row), p_abnormal=0.9 if manifest["label"][row] else 0.1)
        for row, image in enumerate(manifest["image"])
    ]
    Predictions(tuple(images)).write(tmp_path / "folds.csv")
    model = tiny_model(tmp_path / "tiny.onnx")
    arguments = ["data", "audit", str(tmp_path / "index.parquet"), "-o", str(tmp_path / "audit"), "--workers", "1"]
    arguments += ["--model", str(model), "--predictions", str(tmp_path / "folds.csv"), "--format", "json"]
    first = run(app, arguments)
    assert first.exit_code == 0, first.output
    assert "patient0" not in first.output
    columns, _, summary = read_audit(tmp_path / "audit/audit.parquet")
    assert json.loads(first.stdout) == summary
    assert set(columns["turn"]) <= {0, 1, 2, 3}
    assert columns["label_quality"] == pytest.approx([0.9] * 12)
    assert "nothing to do" in run(app, arguments).stderr


@pytest.mark.parametrize(
    "call",
    [
        "split {} --folds 1",
        "split {} --development 1.5",
        "split {} --folds 3 --development 0.2",
        "split {} --seed -1",
        "overlay {} {} --rule vote",
        "cache {} --bits 12",
        "cache {} --size 0",
        "cache {} --workers -1",
        "cache {} --letterbox --preprocessing resize(8,8,bilinear,antialias)|unit",
        "check {} --allow-links",
    ],
)
def test_impossible_and_idle_options_are_a_wrong_call(index, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    assert run(app, ["data", *call.replace("{}", str(index)).split()]).exit_code == 2


def test_audit_takes_predictions_whose_files_are_named_from_the_working_folder(tmp_path, monkeypatch):
    manifest = copy_of_mura(tmp_path / "copy", 6, 1)
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    for place in (Path("copy"), Path("link"), tmp_path / "link"):
        rows = [
            Prediction(str(place / "MURA-v1.1" / image), str(k), p_abnormal=0.9 if k % 2 else 0.2)
            for k, image in enumerate(manifest["image"])
        ]
        assert len(study_probabilities(manifest, [Predictions(tuple(rows))])) == 6


def test_audit_without_the_extra_says_which_to_install(tmp_path, monkeypatch):
    (tmp_path / "folds.parquet").touch()
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run(app, ["data", "audit", "index.parquet", "--predictions", str(tmp_path / "folds.parquet")])
    assert "[data]'" in str(result.exception)


def test_audit_of_an_unreadable_image_exits_3(tmp_path):
    manifest = copy_of_mura(tmp_path, 2, 1)
    (manifest.root / manifest["image"][0]).write_bytes(b"?")
    manifest.write(tmp_path / "index.parquet")
    result = run(
        app, ["data", "audit", str(tmp_path / "index.parquet"), "-o", str(tmp_path / "a"), "--workers", "1"]
    )
    assert result.exit_code == 3
    assert "unreadable" in result.stdout


def test_the_data_room_needs_no_torch():
    rooms = "cli.data", "data.cache_build", "data.audit.run", "data.overlay", "data.folds", "data.sources"
    code = "import sys, " + ", ".join(f"mskscreen.{room}" for room in rooms)
    code += "; print({'torch', 'cleanlab'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
