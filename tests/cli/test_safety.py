"""What a careful user tries first: limits, files that exist, folders of several joints, blank images, pipes."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.cli import common, main
from mskscreen.cli.main import app
from mskscreen.cli.screening import Run
from mskscreen.errors import ModelError
from mskscreen.inference.catalogue import model_path
from mskscreen.pixels import FLAG_CONSTANT, read_radiograph
from mskscreen.predictions import FLAG_MIXED_JOINTS, Prediction, Predictions, studies


@pytest.fixture
def run(model: Path) -> Callable[..., Result]:
    """Run a command with the tiny model."""

    def command(*arguments: object) -> Result:
        needs_model = [] if arguments[0] == "inspect" else ["--model", str(model)]
        return CliRunner().invoke(app, [*map(str, arguments), *needs_model])

    return command


@pytest.fixture
def image(tmp_path: Path, write_png: Callable) -> Path:
    folder = tmp_path / "images"
    return Path(write_png(folder / "one.png") or folder / "one.png")


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_a_model_cannot_steer_the_terminal_by_an_error(
    tmp_path: Path, tiny_model: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, verb: str
) -> None:
    def rename(model: Any) -> None:
        entry = model.metadata_props[0]
        entry.value = entry.value.replace('"tiny"', '"\\u001b[31mred"').replace('"balanced":0.5', '"balanced":5.0')

    path = tiny_model(tmp_path / "m.onnx", edit=rename)
    monkeypatch.setattr("sys.argv", ["mskscreen", "model", verb, str(path)])
    with pytest.raises(SystemExit):
        main.run()
    said = capsys.readouterr().err
    assert r"\x1b[31mred" in said
    assert "\x1b" not in said


# A line of our own, an escape sequence, what turns the text round, and an emoji of rich's.
NAME = "a\nforged: \x1b[31m\u202e:x:.png"
SHOWN = r"a\nforged: \x1b[31m\u202e:x:.png"


@pytest.mark.parametrize("verb", ["predict", "inspect", "predict --maps maps", "explain --out maps --normal"])
def test_a_name_stays_on_its_line(
    run: Callable, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = image.parent
    image.rename(folder / NAME)
    (folder / f"broken{NAME}").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = run(*verb.split(), folder)
    assert found.exit_code == 3
    lines = found.output.splitlines()
    assert not [line for line in lines if "\x1b" in line or "\u202e" in line or line.startswith("forged")]
    assert [line for line in lines if f"broken{SHOWN}: " in line]
    if "inspect" in verb:
        assert f"file: {folder}/{SHOWN}" in lines
        exact = json.loads(run(verb, folder, "--format", "json").stdout)
        assert [Path(row["file"]).name for row in exact] == [NAME, f"broken{NAME}"]
    if "maps" in verb:
        assert list((tmp_path / "maps").glob("*.png"))


def test_a_name_in_a_wrong_call_steers_nothing(run: Callable, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    refused = run("predict", tmp_path / NAME)
    assert refused.exit_code == 2
    assert "\x1b" not in refused.output
    assert "\u202e" not in refused.output


@pytest.mark.parametrize(("name", "said"), [("gone.onnx", "is not there"), ("", "is a folder")])
def test_a_model_that_is_no_file_is_said_to_be_what_it_is(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=f"{said}; name an ONNX file or a model"):
        model_path(tmp_path / name)


@pytest.mark.parametrize("verb", ["predict", "explain", "inspect"])
def test_too_many_pixels_are_an_error_that_names_the_option(
    run: Callable, image: Path, tmp_path: Path, verb: str
) -> None:
    out = ["--out", tmp_path / "maps"] if verb == "explain" else []
    refused = run(verb, image, *out, "--max-pixels", 100)
    assert refused.exit_code == 3
    assert "limit of 100 pixels; raise --max-pixels" in refused.output
    assert run(verb, image, *out, "--max-pixels", 10_000_000).exit_code == 0


@pytest.mark.parametrize(
    "command",
    [
        "export m.safetensors -o notes.txt",
        "model import m.onnx -o m.onnx",
        "calibrate m.onnx --model demo -o m.onnx",
    ],
)
def test_a_model_replaces_models_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Callable, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "m.onnx", contract=None)
    for name in ("m.safetensors", "notes.txt"):
        (tmp_path / name).write_text("of years")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused = CliRunner().invoke(app, command.split())
    assert (refused.exit_code, {path: path.read_bytes() for path in tmp_path.iterdir()}) == (2, before)
    assert "exists already and is no model of mskscreen" in " ".join(refused.output.replace("│", "").split())


def test_predictions_of_other_images_are_not_overwritten(run: Callable, image: Path, write_png: Callable) -> None:
    output = image.parents[1] / "table.csv"
    assert run("predict", image, "-o", output).exit_code == 0
    before = output.read_bytes()
    write_png(image.parents[1] / "others" / "two.png", 2)
    refused = run("predict", image.parents[1] / "others", "-o", output)
    assert (refused.exit_code, output.read_bytes()) == (2, before)
    assert "--overwrite" in refused.output
    assert run("predict", image.parents[1] / "others", "-o", output, "--overwrite").exit_code == 0
    assert [Path(row.file).name for row in Predictions.read(output)] == ["two.png"]


def test_more_images_of_the_same_folder_are_no_loss(run: Callable, image: Path, write_png: Callable) -> None:
    output = image.parents[1] / "table.json"
    run("predict", image.parent, "-o", output)
    assert "finished already" in run("predict", image.parent, "-o", output).output
    write_png(image.parent / "two.png", 2)
    assert run("predict", image.parent, "-o", output).exit_code == 0
    assert len(Predictions.read(output)) == 2


def test_what_is_no_table_is_not_overwritten(run: Callable, image: Path) -> None:
    output = image.parents[1] / "labels.csv"
    output.write_text("patient,label\n1,0\n")
    assert run("predict", image, "-o", output).exit_code == 2
    assert output.read_text() == "patient,label\n1,0\n"


def row(study: str, joint: str | None = None, *, over: str = "elbow", times: float = 9) -> Prediction:
    """An image that shows `joint`, so many `times` as likely as `over`, and nothing else."""
    if joint is None:
        return Prediction(f"{study}/broken.png", study)
    p = np.zeros(len(JOINT_LABELS))
    p[[JOINT_LABELS.index(joint), JOINT_LABELS.index(over)]] = times, 1
    return Prediction(f"{study}/{joint}.png", study, joint, tuple(p / p.sum()))


@pytest.mark.parametrize(
    ("rows", "mixed"),
    [
        ([row("a", "hand"), row("a", "wrist"), row("b", "hand"), row("b")], True),
        ([row("a", "hand"), row("a", "wrist", times=1.5), row("b", "hand")], True),
        ([row("a", "hand"), row("a", "hand"), row("b", "wrist")], False),
        ([row("a", "hand"), row("a", "wrist", over="hand", times=1.5), row("b", "hand")], False),
        ([row("a", "hand", over="wrist", times=1.5), row("a", "wrist", over="hand"), row("b", "hand")], False),
    ],
)
def test_studies_of_several_joints_are_said_and_flagged(
    rows: list[Prediction], mixed: bool, capsys: pytest.CaptureFixture
) -> None:
    watched = Run(len(rows))
    assert list(watched.watch(iter(rows))) == rows
    assert watched.report() is common.Exit.OK
    said = capsys.readouterr().err
    assert ("1 of 2 studies hold" in said) is mixed
    assert ("as that of image 2 of hand and wrist: each" in said) is mixed
    for order in (rows, rows[::-1]):
        flags = {study.study: FLAG_MIXED_JOINTS in study.flags for study in studies(order, 0.5)}
        assert flags["a"] is mixed
        assert not flags.get("b")


def test_an_error_of_the_file_system_names_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/data/patient7/study1_positive")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == common.Exit.FAILURE
    said = "error: study1: Permission denied; change its permissions, or choose another place\n"
    assert capsys.readouterr().err == said


WRITERS = [
    "predict images --model m.onnx -o {}/table.csv",
    "evaluate images --report {}/report.html",
    "explain score images images --model demo --report {}/report.html",
    "calibrate images --model demo -o {}/m.onnx",
    "card demo --out {}/card.md",
    "model import m.onnx -o {}/m.onnx",
    "phantom sheet images {}/sheet.png",
]


@pytest.mark.parametrize("command", WRITERS)
def test_a_place_that_is_not_there_is_said_before_any_work(
    model: Path,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "m.onnx")
    monkeypatch.setattr("sys.argv", ["mskscreen", *command.format("gone").split()])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code in (common.Exit.FAILURE, common.Exit.USAGE)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "its folder is not there; make it, or choose another place" in said
    assert not Path("gone").exists()


@pytest.mark.parametrize("command", [*WRITERS[:2], "data index images -o {}/new/index.parquet"])
def test_a_place_that_may_not_be_written_is_said_before_any_work(
    model: Path, image: Path, tmp_path: Path, command: str
) -> None:
    as_user = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    if as_user and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere, and cannot give that up here")
    shutil.copy(model, tmp_path / "m.onnx")
    (tmp_path / "closed").mkdir(mode=0o555)
    code = "from mskscreen.cli.main import run; run()"
    done = subprocess.run(
        [*as_user, sys.executable, "-c", code, *command.format("closed").split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (common.Exit.FAILURE, common.Exit.USAGE)
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "its folder may not be written to; change its permissions, or choose another place" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "arguments", ["predict --maps out", "predict --maps out -o table.json", "explain --out out"]
)
def test_a_full_disk_is_said_with_the_file_and_what_to_do(
    arguments: str,
    image: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    normal = ["--normal"] if "explain" in arguments else []
    argv = ["mskscreen", *arguments.split(), *normal, str(image), "--model", str(model)]
    monkeypatch.setattr("sys.argv", argv)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Enough for the table of one image, and for no picture.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(SystemExit) as ended:
            main.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended.value.code == common.Exit.FAILURE
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: [\w.-]*images-one-[\w.]+\.png: ", said)
    assert "make room and run the same command again" in said
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".png"]


def blanks() -> Iterator[np.ndarray]:
    yield np.full((30, 20), 77, np.uint8)
    yield np.full((1000, 900), 4000, np.uint16)
    yield np.zeros((1, 1), np.uint8)
    yield np.full((9, 9, 3), 12, np.uint8)


@pytest.mark.parametrize("pixels", blanks())
def test_an_even_image_is_flagged(pixels: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "blank.png")
    for source in (tmp_path / "blank.png", pixels):
        assert FLAG_CONSTANT in read_radiograph(source).record.flags
    changed = pixels.copy()
    changed[-1:, -1:] = 0 if pixels.any() else 9
    expected = pixels.size > 1
    assert (FLAG_CONSTANT not in read_radiograph(changed).record.flags) is expected


def test_pictures_of_burned_in_text_are_said(run: Callable, tmp_path: Path, write_dicom: Callable) -> None:
    scan = write_dicom(tmp_path / "scan.dcm", BurnedInAnnotation="YES")
    plain = write_dicom(tmp_path / "plain.dcm", BurnedInAnnotation="NO")
    said = "is declared by 1 of the images"
    assert said in run("predict", scan, plain, "--maps", tmp_path / "maps").output
    assert said not in run("predict", plain, "--maps", tmp_path / "maps").output
    assert said in run("explain", scan, plain, "--out", tmp_path / "explained", "--normal").output
    shown = run("inspect", scan).stdout
    assert "burned_in_annotation YES" in shown
    assert "the pixels may show who the patient is" in shown


def test_the_flag_reaches_the_table(run: Callable, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 30), 9, np.uint8)).save(tmp_path / "blank.png")
    table = json.loads(run("predict", tmp_path / "blank.png", "--format", "json").stdout)
    assert [FLAG_CONSTANT in row["flags"] for row in table["images"] + table["studies"]] == [True, True]


def test_inspect_in_a_pipe_is_a_field_a_line(run: Callable, image: Path) -> None:
    first, *lines = run("inspect", image).stdout.splitlines()
    assert first == f"file: {image}"
    assert "format: PNG" in lines
    assert all(": " in line for line in lines)
    assert lines[0] == "format: PNG"


def test_a_table_in_a_pipe_is_neither_folded_nor_padded(model: Path) -> None:
    lines = CliRunner().invoke(app, ["model", "show", str(model)]).stdout.splitlines()
    assert max(map(len, lines)) > 80
    assert all(line == line.rstrip() for line in lines)
    head = next(i for i, line in enumerate(lines) if line.split() == ["field", "value"])
    assert set(lines[head + 1]) <= {" ", "─"}
    assert len(lines[head + 1]) <= len(lines[head])


def test_inspect_opens_folders_and_says_where_there_is_no_image(run: Callable, image: Path) -> None:
    assert run("inspect", image.parent).stdout.startswith(f"file: {image}")
    (image.parent / "none").mkdir()
    empty = run("inspect", image.parent / "none")
    assert (empty.exit_code, "no radiograph in" in empty.output) == (2, True)


def test_what_folders_hold_beside_images_is_said(run: Callable, image: Path, tmp_path: Path) -> None:
    assert "passed over" not in run("predict", image.parent).output
    (image.parent / "a.gif").touch()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "scans").symlink_to(image.parent)
    assert "passed over: 1 file of another kind\n" in run("predict", image.parent).output
    empty = run("predict", tmp_path / "links")
    assert empty.exit_code == 2
    assert "passed over: 1 linked folder" in " ".join(empty.output.replace("│", " ").split())


def test_an_empty_file_is_called_empty(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").touch()
    assert "scan.dcm: is empty" in run("inspect", tmp_path / "scan.dcm").output
