"""`mskscreen predict` from the outside: what it prints, where, and how it ends."""

import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common, main
from mskscreen.contract import METADATA_KEY, Provenance
from mskscreen.data.manifest import Manifest
from mskscreen.inference import Screener
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.onnx_file import write_metadata
from mskscreen.predictions import Predictions


@pytest.mark.parametrize("learned", ["joint", "abnormality"])
def test_what_a_model_did_not_learn_it_does_not_say(
    run: Callable, model: Path, mura: Path, tmp_path: Path, learned: str
) -> None:
    notes, joint_only = "The other output was not trained and says nothing.", learned == "joint"
    provenance = Provenance(notes=notes, protocol={"tasks": learned})
    contract = dataclasses.replace(read_contract(model), provenance=provenance)
    one = tmp_path / "one.onnx"
    write_metadata(model, METADATA_KEY, contract.to_json(), one)
    table = json.loads(run(mura, "--format", "json", model=one).out)
    assert table["model"]["tasks"] == [learned]
    for row in (*table["images"][:4], *table["studies"]):
        for name in ("p_abnormal", "abnormal", "p_joint", "joint"):
            assert (row[name] is None) == (("abnormal" in name) == joint_only)
    done = run(mura, model=one)
    assert f"model {contract.name}: {notes}\n" in done.err
    assert re.search(r" (yes|no) \d", done.out) is None or not joint_only
    assert ("abnormal from" in done.err) != joint_only
    assert ("which did not learn abnormality" in done.err) == joint_only
    maps = run(mura, "--maps", tmp_path / "maps", model=one)
    assert maps.code == (2 if joint_only else 3)
    assert ("did not learn abnormality, so that a map of it means nothing" in _plainly(maps.err)) == joint_only


def test_a_predictions_table_is_told_from_a_radiograph(run: Callable, mura: Path, tmp_path: Path) -> None:
    for form in ("json", "jsonl", "csv", "parquet"):
        table = tmp_path / f"table.{form}"
        assert run(mura, "-o", table).code == 3
        done = run(table)
        assert (done.code, done.out) == (2, "")
        assert "is a predictions table, not a radiograph; judge it with: mskscreen evaluate" in _plainly(done.err)
    done = run(mura / "XR_ELBOW", table, "--format", "jsonl")
    assert (done.code, len(done.out.splitlines())) == (0, 2)
    assert f"passed over: '{table}' is a predictions table" in done.err


def _plainly(text: str) -> str:
    """A message of the command line without the box around it."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_json_has_model_images_and_studies(run: Callable, mura: Path, model: Path) -> None:
    done = run(mura, "--format", "json")
    assert done.code == 3
    table = json.loads(done.out)
    assert set(table) == {"model", "images", "studies"}
    assert (table["model"]["name"], table["model"]["intended_use"]) == ("tiny", NOT_FOR_DIAGNOSIS)
    expected = {
        *("file", "study", "joint", "p_joint", "p_abnormal", "abnormal", "pred1", "pred2", "flags", "error"),
    }
    assert all(expected <= set(row) for row in table["images"])
    assert [row["error"] is None for row in table["images"]] == [True] * 4 + [False]
    assert table["images"][4]["flags"] == ["error"]
    for row in table["images"][:4]:
        assert (len(row["p_joint"]), len(row["pred1"]), len(row["pred2"])) == (7, 2, 7)
    shape = [(row["study"], row["images"], row["errors"]) for row in table["studies"]]
    assert shape == [
        ("XR_ELBOW/patient00001/study1", 2, 0),
        ("XR_HAND/patient00001/study1", 1, 0),
        ("XR_HAND/patient00002/study1", 2, 1),
    ]
    first = [row["p_abnormal"] for row in table["images"][:2]]
    assert table["studies"][0]["p_abnormal"] == pytest.approx(np.mean(first))


def test_every_format_says_what_the_screener_says(run: Callable, mura: Path, model: Path, tmp_path: Path) -> None:
    expected = Screener.load(model).predict(mura)
    for form in ("json", "jsonl", "csv"):
        done = run(mura, "--format", form)
        (tmp_path / f"printed.{form}").write_text(done.out)
        assert Predictions.read(tmp_path / f"printed.{form}").images == expected.images
        assert (done.code, run(mura, "--output", tmp_path / f"written.{form}").code) == (3, 3)
        assert Predictions.read(tmp_path / f"written.{form}").images == expected.images
    run(mura, "-o", tmp_path / "written.parquet")
    assert Predictions.read(tmp_path / "written.parquet").studies == expected.studies
    assert next(csv.reader(io.StringIO(done.out)))[:3] == ["file", "study", "joint"]


def test_results_are_on_stdout_and_everything_else_on_stderr(run: Callable, mura: Path) -> None:
    done = run(mura)
    assert done.code == 3
    assert "XR_ELBOW/patient00001/study1" in done.out
    assert NOT_FOR_DIAGNOSIS in done.out.lower()
    assert "1 of 5 images could not be scored" in done.err
    assert "image2.png" in done.err
    assert "error:" not in done.out
    good = run(mura / "XR_ELBOW", "--format", "csv")
    assert good.code == 0
    assert re.match(r"model tiny: openvino/f32 \(.+\)\n", good.err)
    assert NOT_FOR_DIAGNOSIS in good.err.lower()
    assert NOT_FOR_DIAGNOSIS not in good.out.lower()


def test_a_study_whose_number_begins_as_its_folder_is_called_is_shown_whole(
    run: Callable, write_dicom: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path / "1" / "a.dcm", StudyInstanceUID="1.2.840.113619.7")
    monkeypatch.chdir(tmp_path)
    assert re.search(r"^ +1\.2\.840\.113619\.7 .*^ +a\.dcm ", run("1").out, re.MULTILINE | re.DOTALL)


def test_quiet_leaves_the_errors_and_nothing_else(
    mura: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["mskscreen", "-q", "predict", str(mura), "--model", str(model)])
    with pytest.raises(SystemExit):
        main.run()
    out, err = capsys.readouterr()
    error, summary = err.splitlines()
    assert NOT_FOR_DIAGNOSIS in out.lower()
    assert error.startswith("error: image")
    assert summary.startswith("1 of 5 images could not be scored")


def test_the_table_is_readable_in_eighty_columns(
    run: Callable, mura: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "out", Console(force_terminal=True, width=80, highlight=False, markup=False))
    out = re.sub(r"\x1b\[[0-9;]*m", "", run(mura).out)
    assert max(map(len, out.splitlines())) <= 80
    for text in ("Studies", "Images", "study", "joint", "abnormal", "XR_HAND/patient00002/study1"):
        assert text in out
    assert re.search(r"XR_ELBOW/patient00001/study1 +\w+ 0\.\d\d +(yes|no) 0\.\d\d +2 +0", out)


def test_file_names_can_neither_style_nor_steer_the_terminal(
    run: Callable, write_png: Callable, tmp_path: Path
) -> None:
    write_png(tmp_path / "[red]a\x1b[2Jb.png")
    done = run(tmp_path)
    assert r"[red]a\x1b[2Jb.png" in done.out
    assert "\x1b" not in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty"], "no radiograph in 'empty'"),
        (["*.nothing"], "no radiograph in '*.nothing'"),
        (["-"], "no radiograph in stdin"),
        ([""], "an empty name"),
        (["a.png", "--at", "best"], "no operating point 'best'; it has balanced, sensitive, specific"),
        (["a.png", "--format", "parquet"], "--output"),
        (["a.png", "--format", "csv", "--output", "o.json"], "leave out one"),
        (["a.png", "--output", "o.xlsx"], ".parquet"),
        (["a.png", "--engine", "magic"], "magic"),
        (["a.png", "--study-by", "magic"], "magic"),
        (["a.png", "--colour"], "--colour"),
        (["a.png", "--maps", "a.png"], "is a file"),
        ([], "SOURCES"),
    ],
)
def test_a_mistake_in_the_command_is_code_2_and_one_clear_sentence(
    run: Callable, tmp_path: Path, write_png: Callable, monkeypatch: pytest.MonkeyPatch, arguments: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_png(tmp_path / "a.png")
    done = run(*arguments)
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.err).split())
    assert (done.code, done.out) == (2, "")
    assert said in words
    assert not list(tmp_path.glob("o.*"))


def test_an_unusable_model_is_code_1(run: Callable, tmp_path: Path, write_png: Callable) -> None:
    image = write_png(tmp_path / "a.png")
    for model, said in (("nonsense", "bundled"), (image, "not an ONNX file")):
        done = run(image, model=model)
        assert (done.code, done.out) == (1, "")
        assert said in done.err
    done = run(image, "--output", tmp_path / "no" / "folder" / "a.csv")
    assert (done.code, done.out) == (1, "")
    assert "a.csv" in done.err


def test_sources_are_files_folders_patterns_and_a_list_on_stdin_each_image_once(
    run: Callable, mura: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mura.parent)

    def files(*arguments: str, stdin: str = "") -> list[str]:
        return [
            json.loads(line)["file"] for line in run(*arguments, "--format", "jsonl", stdin=stdin).out.splitlines()
        ]

    whole = files("valid")
    assert len(whole) == 5
    assert files("valid", "valid/XR_HAND", whole[0], str(mura)) == whole
    assert files("valid/*/*/*/image1.png") == [name for name in whole if name.endswith("image1.png")]
    listed = "\n".join([whole[2], "", whole[0] + "\r", "valid/XR_HAND"]) + "\n"
    assert files("-", stdin=listed) == [whole[2], whole[0], *whole[3:]]
    assert files("-", stdin=f"\ufeff{listed}") == [whole[2], whole[0], *whole[3:]]  # as editors of Windows save it
    picture = Path(whole[0]).read_bytes().decode("utf-8", "surrogateescape")
    refused = run("-", stdin=picture)
    assert (refused.code, "no list of names" in refused.err) == (2, True)
    assert files(whole[0], "x" * 300) == [whole[0], "x" * 300]
    done = run(whole[0], "*.nothing", "nor/[this].png")
    assert done.code == 0
    assert "no radiograph in '*.nothing' and 1 more" in done.err
    assert files("gone.png") == ["gone.png"]
    assert run("gone.png").code == 3


def test_a_list_on_stdin_may_hold_names_that_are_not_utf_8(
    model: Path, tmp_path: Path, write_png: Callable
) -> None:
    named = os.fsencode(tmp_path) + b"/\xff.png"
    write_png(Path(os.fsdecode(named)))
    code = "from mskscreen.cli.main import run; run()"
    command = [sys.executable, "-c", code, "predict", "-", "--format", "jsonl", "--model", str(model)]
    # As in the locales of desktops, where Python reads stdin strictly.
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, input=named + b"\n", env=strict, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"].endswith("/\\udcff.png")


def test_a_manifest_stands_for_its_images(run: Callable, mura: Path, tmp_path: Path) -> None:
    whole = [json.loads(line)["file"] for line in run(mura, "--format", "jsonl").out.splitlines()]
    named = [*reversed(whole), str(mura / "gone.png")]
    rows = [{"image": Path(file).relative_to(tmp_path).as_posix()} for file in named]
    Manifest.from_rows(tmp_path, rows, "test").write(tmp_path / "m.parquet")
    done = run(tmp_path / "m.parquet", "--format", "jsonl")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [row["file"] for row in found] == named
    assert [row["error"] is None for row in found] == [False, True, True, True, True, False]
    pq.write_table(pq.read_table(tmp_path / "m.parquet").replace_schema_metadata(None), tmp_path / "bare.parquet")
    assert "not a whole manifest" in run(tmp_path / "bare.parquet").err


def test_a_manifest_stands_for_nothing_outside_its_folder(run: Callable, mura: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").symlink_to(next(mura.rglob("*.png")))
    Manifest.from_rows(tmp_path / "data", [{"image": "a.png"}], "test").write(tmp_path / "m.parquet")
    done = run(tmp_path / "m.parquet")
    assert (done.code, done.out) == (1, "")


def test_a_thousand_files_with_one_in_twenty_corrupt(
    run: Callable, write_png: Callable, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    whole = write_png(folder / "0.png", 3, (32, 32)).read_bytes()
    for i in range(1000):
        (folder / f"{i}.png").write_bytes(whole[: len(whole) // 2] if i % 20 == 7 else whole)
    done = run(folder, "--output", tmp_path / "table.json")
    assert (done.code, done.out) == (3, "")
    assert "1000 images, 50 with an error" in done.err
    table = Predictions.read(tmp_path / "table.json")
    assert [i for i, row in enumerate(table) if row.error] == list(range(7, 1000, 20))
    assert len({row.pred1 for row in table if not row.error}) == 1


def test_maps_are_pictures_with_safe_names_and_no_label(run: Callable, mura: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        assert run(mura, "--maps", mura / "maps", "-o", tmp_path / f"{number}.json").code == 3
        assert len(Predictions.read(tmp_path / f"{number}.json")) == 5
    pictures = list((mura / "maps").iterdir())
    assert len(pictures) == 4
    for picture in pictures:
        assert re.fullmatch(r"patient0000[12]-study1-image[12]-[0-9a-f]{16}\.png", picture.name)
        with Image.open(picture) as image:
            assert image.format == "PNG"
            assert image.mode == "RGB"


def test_maps_of_a_model_without_map_are_refused(
    run: Callable, mura: Path, tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    without = tiny_model(tmp_path / "m.onnx", contract=tiny_contract(map=None), drop=("map",))
    done = run(mura, "--maps", tmp_path / "maps", "-o", tmp_path / "table.json", model=without)
    assert (done.code, done.out) == (2, "")
    assert "no evidence map" in " ".join(done.err.split())
    assert not list(tmp_path.glob("table.json*"))
    assert run(mura, model=without).code == 3


def test_the_name_of_a_model_cannot_steer_the_terminal(
    run: Callable, mura: Path, tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    model = tiny_model(tmp_path / "m.onnx", contract=tiny_contract(name="\x1b]0;title\x07"))
    done = run(mura, model=model)
    assert r"model \x1b]0;title\x07:" in done.err
    assert "\x1b" not in done.err
