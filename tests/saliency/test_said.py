"""What `mskscreen explain` says beside its maps: how it is called, what it left out and what is not certain."""

import json

import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.saliency.maps import read_records

RUN = CliRunner()


def explain(*arguments):
    found = RUN.invoke(app, ["explain", *map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found


def test_help_shows_how_files_are_explained():
    said = " ".join(explain("--help").output.split())
    for text in ("FILES", "--out", "--method", "--of"):
        assert text in said


def test_images_left_out_as_normal_are_said_with_the_option_that_explains_them(bright_model, write_png, tmp_path):
    file, model = write_png(tmp_path / "a.png"), bright_model(bias=-100)
    chosen = [file, "--out", tmp_path / "out", "--model", model, "--of", "joint"]
    assert "--normal" in explain(*chosen).stderr
    assert "--normal" not in explain(*chosen, "--normal").stderr


def test_a_map_that_did_not_converge_is_said(bright_model, write_png, tmp_path):
    file = write_png(tmp_path / "a.png", 4)
    chosen = [file, "--model", bright_model(), "--method", "rise"]
    assert "1 maps of RISE did not converge" in explain(*chosen, "--out", tmp_path / "a", "--passes", 2).stderr
    (record,) = read_records(tmp_path / "a")
    assert (record.passes, record.converged) == (128, False)
    other = explain(*chosen, "--out", tmp_path / "b", "--converged", 1000)
    assert "converge" not in other.stderr


def test_sanity_tells_what_a_map_depends_on_and_what_not(tiny_model, write_png, tmp_path):
    files = [write_png(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    model = tiny_model(tmp_path / "m.onnx")
    found = explain("sanity", *files, "--model", model, "--shuffled", model, "--images", 2, "--format", "json")
    same = {row["check"]: row["similarity"] for row in json.loads(found.stdout)}
    assert same["0% of the layers shuffled"] == pytest.approx(1)
    assert same["100% of the layers shuffled"] < 0.8
    assert same["trained on shuffled labels"] == pytest.approx(1)
    assert same["ONNX Runtime"] > 0.99
    assert "of 2 images" in found.stderr


def test_sanity_goes_on_without_a_file_that_cannot_be_read_and_names_it(tiny_model, write_png, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    files = [tmp_path / "a.png", write_png(tmp_path / "b.png", 1)]
    model = tiny_model(tmp_path / "m.onnx")
    found = RUN.invoke(app, ["explain", "sanity", *map(str, files), "--model", str(model)])
    assert found.exit_code == 3
    assert "HiResCAM of 1 images" in found.stderr
    assert "left out: image 1 of 2, a.png" in found.stderr.replace(f"{tmp_path}/", "")
