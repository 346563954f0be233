"""The verb `export` loses nothing of what was there and takes no option that would do nothing."""

import dataclasses
import re
from pathlib import Path

import pytest
from calibrated import calibrated
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY, Gate, ModelContract, Variant, gate_key
from mskscreen.errors import DataError
from mskscreen.export.precisions import Request, add_precisions, work_folder
from mskscreen.inference.backends import OpenVino
from mskscreen.inference.catalogue import model_path, read_contract
from mskscreen.inference.machine import machine_kind
from mskscreen.inference.onnx_file import write_metadata
from mskscreen.networks.checkpoint import save_checkpoint


def contract_of(**fields):
    steps = "decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit"
    return ModelContract("random", "resnet18", steps, (224, 224), **fields)


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.mark.parametrize(
    ("command", "idle"),
    [
        ("m.onnx --triton d --out n.onnx", "--out: of no use where a file that is ONNX already is only copied"),
        ("m.onnx --triton d --calibration m.onnx --gate m.onnx", "--calibration and --gate: of no use without"),
        ("m.onnx --triton d --format json", "--format: of no use without --precision bf16 or int8"),
        ("m.onnx --precision bf16 --calibration m.onnx", "--calibration: of no use without --precision int8"),
        (
            "m.onnx --precision int8 --calibration-images 9",
            "--calibration-images: of no use without --calibration",
        ),
        ("m.onnx --precision int8 --force-precision", "--force-precision: of no use without --triton and --ovms"),
    ],
)
def test_an_option_without_effect_is_refused(command, idle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").touch()
    done = run(*command.split())
    assert done.exit_code == 2
    assert idle in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_bundled_model_is_known_by_its_name_and_nothing_is_written_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("demo", "--triton", "repository")
    assert (done.exit_code, done.stdout.split()) == (0, ["repository/demo"])
    assert (tmp_path / "repository/demo/1/model.onnx").read_bytes() == model_path("demo").read_bytes()
    for command, said in (
        (("demo", "--precision", "bf16"), "say where to write"),
        (("gone.safetensors",), "file 'gone.safetensors' does not exist"),
        (("demo", "--triton", "repository/demo/1/model.onnx"), "model.onnx' is a file"),
        (("demo", "--ovms", "repository/demo/1/model.onnx"), "model.onnx' is a file"),
        (("demi", "--triton", "d"), "model 'demi' is neither an ONNX file nor a bundled model"),
    ):
        done = run(*command)
        assert done.exit_code == 2
        assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_folder_of_a_run_stands_for_its_best_checkpoint(tmp_path):
    save_checkpoint(calibrated("resnet18"), contract_of(), tmp_path / "best.safetensors")
    assert run(tmp_path).exit_code == 0
    assert read_contract(tmp_path / "best.onnx").architecture == "resnet18"


def test_the_same_export_again_keeps_gates_and_variants(tmp_path):
    checkpoint, out = tmp_path / "run.safetensors", tmp_path / "run.onnx"
    save_checkpoint(calibrated("resnet18"), contract_of(), checkpoint)
    assert run(checkpoint).exit_code == 0
    contract = read_contract(out)
    more = {
        "approved": {gate_key("openvino", "bf16", machine_kind()): Gate(True)},
        "variants": {"int8": Variant("run.int8.onnx", 1, "00")},
    }
    write_metadata(out, METADATA_KEY, dataclasses.replace(contract, **more).to_json(), out)
    again = run(checkpoint)
    assert (again.exit_code, "is there already" in again.stderr) == (0, True)
    assert read_contract(out).approved == more["approved"]
    assert read_contract(out).variants == more["variants"]
    save_checkpoint(calibrated("resnet18"), contract_of(joint_confidence=0.25), checkpoint)
    assert run(checkpoint).exit_code == 0
    assert (read_contract(out).joint_confidence, read_contract(out).approved) == (0.25, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.onnx", "run.safetensors"]


def test_a_precision_that_no_engine_here_computes_in_is_said(tmp_path, model, monkeypatch):
    monkeypatch.setattr(OpenVino, "precisions", staticmethod(lambda: {"f32", "int8"}))
    done = run(model, "--precision", "bf16", "-o", tmp_path / "m.onnx")
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1] == str(tmp_path / "m.onnx"), "what was written"
    for engine in ("openvino", "onnxruntime"):
        assert re.search(rf"{engine}/bf16 +not computed on this machine", done.stdout)


def test_a_work_folder_that_a_killed_run_left_is_swept_and_one_in_use_is_not(tmp_path, model):
    out = tmp_path / "m.onnx"
    left = tmp_path / ".m.onnx.precisions"
    left.mkdir()
    (left / "images-0.npy").write_bytes(b"of a patient")
    with work_folder(out, "precisions") as folder:
        assert folder == left
        assert list(folder.iterdir()) == []
        with pytest.raises(DataError, match=r"m\.onnx\.precisions\.lock: another process is writing m\.onnx"):
            add_precisions(model, Request(["bf16"]), out)
        assert folder.is_dir()
    add_precisions(model, Request(["bf16"]), out)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
