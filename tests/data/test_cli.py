"""The verbs of `mskscreen data`: exit codes, outputs, and nothing of a patient on stderr."""

import json

import pytest
from image_files import copy_of_mura
from mura_lists import Study, published_studies, write_lists
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.data.manifest import Manifest

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
    result = run(app, ["data", "index", str(root), "-o", str(tmp_path / "index.parquet")])
    assert result.exit_code == 3
    assert "train_image_paths.csv:41" in result.stderr
    assert "patient9" not in result.output
    assert "positive" not in result.output


def test_index_can_hash(tmp_path):
    root = write_lists(tmp_path, STUDIES[:1])
    assert run(app, ["data", "index", str(root), "-o", str(tmp_path / "i.parquet"), "--sha256"]).exit_code == 0
    assert len(Manifest.read(tmp_path / "i.parquet")["sha256"][0]) == 64


def test_check_of_the_published_lists_is_exact_and_of_others_is_not(tmp_path):
    root = write_lists(tmp_path, published_studies(), files=None)
    result = run(app, ["data", "check", str(root), "--lists-only"])
    assert result.exit_code == 0, result.output
    assert "all counts are exact" in result.stderr
    missing = run(app, ["data", "check", str(root)])
    assert missing.exit_code == 3
    assert "40,005 listed images are not on disk" in missing.stderr
    file = root / "valid_labeled_studies.csv"
    file.write_text(file.read_text().replace("/,1\n", "/,0\n", 1))
    changed = run(app, ["data", "check", str(root), "--lists-only", "--format", "json"])
    assert changed.exit_code == 3
    differing = {(r["split"], r["joint"], r["measure"]): r["difference"] for r in json.loads(changed.stdout)}
    assert differing["valid", "elbow", "positive_studies"] == -1
    assert differing["valid", "elbow", "negative_studies"] == 1
    assert differing["train", "elbow", "negative_studies"] == 0


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
    first = run(app, [*arguments, "--workers", "1", "--format", "json"])
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
