"""What is written for Triton and OpenVINO Model Server is what they read: config by schema, model by its ports."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest

from mskscreen.cli import main
from mskscreen.contract import Gate, ModelContract, Variant
from mskscreen.errors import ModelError
from mskscreen.inference import open_engine
from mskscreen.inference.backends import BACKENDS
from mskscreen.inference.precision import sha256_of
from mskscreen.inference.repository import write_ovms, write_triton

ANYWHERE = {f"{engine}/int8": Gate(True, {"studies": 100.0}) for engine in BACKENDS}

# Properties and types of a model in the published schema of config.json; further ones are refused by the server.
OVMS = {
    "name": str,
    "base_path": str,
    "batch_size": (int, str),
    "model_version_policy": dict,
    "shape": (dict, str),
    "nireq": int,
    "target_device": str,
    "plugin_config": dict,
}


def parse(text: str):
    protobuf = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return protobuf.Parse(text, model_config.ModelConfig())


@pytest.mark.parametrize("batch", [None, 3])
def test_triton_reads_the_config_and_finds_the_ports_of_the_model(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, batch: int | None
) -> None:
    contract = tiny_contract(batch=batch, name="../a model: 1")
    model = tiny_model(tmp_path / "m.onnx", batch=batch, contract=contract)
    place, _ = write_triton(model, tmp_path / "repository")
    assert place == tmp_path / "repository" / "a-model-1"
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "repository"}
    config = parse((place / "config.pbtxt").read_text())
    assert config.name == place.name
    assert (place / "1" / "model.onnx").read_bytes() == model.read_bytes()
    found = openvino.Core().read_model(place / "1" / "model.onnx")
    for said, ports in ((config.input, found.inputs), (config.output, found.outputs)):
        shapes = {port.any_name: port.get_partial_shape() for port in ports}
        assert {port.name for port in said} == set(shapes)
        for port in said:
            dims = [-1, *port.dims] if config.max_batch_size else list(port.dims)
            assert openvino.PartialShape(dims) == shapes[port.name]
    assert bool(config.max_batch_size) == (batch is None)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert ModelContract.from_json(parameters["mskscreen.contract"]) == contract
    assert parameters["mskscreen.sha256"] == open_engine(model).digest


def test_triton_is_told_of_a_number_for_each_image(tmp_path: Path, with_novelty: Path) -> None:
    config = (write_triton(with_novelty, tmp_path / "repository")[0] / "config.pbtxt").read_text()
    (port,) = [port for port in parse(config).output if port.name == "novelty"]
    assert (list(port.dims), port.HasField("reshape"), list(port.reshape.shape)) == ([1], True, [])


@pytest.mark.parametrize("write", [write_triton, write_ovms])
def test_what_is_checked_is_the_file_that_is_copied_and_unapproved_only_if_forced(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, monkeypatch: pytest.MonkeyPatch, write: Callable
) -> None:
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / "cache"))
    int8 = tiny_model(tmp_path / "m.int8.onnx", contract=tiny_contract(precision="int8", approved=ANYWHERE))
    variant = Variant(int8.name, int8.stat().st_size, sha256_of(int8))
    f32 = tiny_model(tmp_path / "m.onnx", contract=tiny_contract(variants={"int8": variant}, approved=ANYWHERE))
    unapproved = tiny_model(tmp_path / "u.onnx", contract=tiny_contract(precision="int8"))
    opened = []
    for backend in BACKENDS.values():
        start = backend.__init__

        def noted(self: Any, path: Path, *arguments: Any, start: Callable = start) -> None:
            opened.append(path)
            start(self, path, *arguments)

        monkeypatch.setattr(backend, "__init__", noted)
    with pytest.raises(ModelError, match=r"was not gated.*--force-precision"):
        write(unapproved, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
    for model in (f32, int8, unapproved):
        place, _ = write(model, tmp_path / model.name.replace(".", "-"), unapproved=model is unapproved)
        assert (place / "1" / "model.onnx").read_bytes() == model.read_bytes()
    assert opened == [f32, int8, unapproved]
    assert not (tmp_path / "cache").exists()


def test_ovms_reads_the_config_and_a_second_model_joins_the_first(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    folder = tmp_path / "repository"
    for name in ("one", "two"):
        write_ovms(tiny_model(tmp_path / f"{name}.onnx", contract=tiny_contract(name=name)), folder)
    config = json.loads((folder / "config.json").read_text())
    assert set(config) == {"model_config_list"}
    entries = [entry["config"] for entry in config["model_config_list"]]
    assert [entry["name"] for entry in entries] == ["one", "two"]
    for entry in entries:
        assert all(isinstance(value, OVMS[key]) for key, value in entry.items())
        # The server compiles with these settings; an unknown one would be an error here, too.
        path = folder / entry["base_path"] / "1" / "model.onnx"
        compiled = openvino.Core().compile_model(path, entry["target_device"], entry["plugin_config"])
        assert compiled(np.zeros((1, 1, 32, 32), np.float32))["pred1"].shape == (1, 2)


def test_a_config_that_is_not_one_is_left_alone(tmp_path: Path, model: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="is not a configuration"):
        write_ovms(model, tmp_path)
    assert (tmp_path / "config.json").read_text() == "[]"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("write", [write_triton, write_ovms])
def test_another_model_of_the_same_name_is_refused_and_the_same_one_left_as_it_is(
    tmp_path: Path, model: Path, tiny_model: Callable, tiny_contract: Callable, write: Callable
) -> None:
    folder = tmp_path / "repository"
    place, new = write(model, folder)
    assert new
    config = place / "config.pbtxt" if write is write_triton else folder / "config.json"
    # A server's owner may have changed it.
    config.write_text(config.read_text() + "\n")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert write(model, folder) == (place, False)
    other = tiny_model(tmp_path / "other.onnx", contract=tiny_contract(joint_confidence=0.3))
    with pytest.raises(ModelError, match="holds another model named 'tiny'; choose another folder, or remove"):
        write(other, folder)
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }
    # What a killed run left is finished.
    config.unlink()
    (place / "1" / ".model.partial.onnx").write_bytes(b"half")
    assert write(model, folder) == (place, True)
    (place / "2").mkdir()
    (place / "2" / "model.onnx").write_bytes(other.read_bytes())
    with pytest.raises(ModelError, match="another model"):
        write(model, folder)


def test_a_description_that_changed_is_not_passed_over(tmp_path: Path, tiny_model: Callable) -> None:
    model = tiny_model(tmp_path / "m.onnx", contract=None)
    steps = "decode|grayscale|resize(32,32,bilinear,antialias)|unit"
    text = f"name = 'foreign'\narchitecture = 'x'\ninput_size = [32, 32]\npreprocessing = '{steps}'\n"
    model.with_suffix(".toml").write_text(text)
    write_triton(model, tmp_path / "repository")
    model.with_suffix(".toml").write_text(text + "operating_points = {balanced = 0.9}\n")
    with pytest.raises(ModelError, match=r"config\.pbtxt: holds another contract of this model; choose another"):
        write_triton(model, tmp_path / "repository")


def test_a_model_that_the_config_keeps_in_another_folder_is_not_replaced(tmp_path: Path, model: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_config_list": [{"config": {"name": "tiny", "base_path": "/models/tiny"}}]}')
    with pytest.raises(ModelError, match="names another folder for a model 'tiny'"):
        write_ovms(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_export_writes_a_repository_of_a_file_that_is_onnx_already(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    one, two = tmp_path / "triton", tmp_path / "ovms"
    command = ["mskscreen", "export", str(model), "--triton", str(one), "--ovms", str(two)]
    monkeypatch.setattr(sys, "argv", command)
    for said in (0, 2):
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert not caught.value.code
        printed = capsys.readouterr()
        assert printed.out.split() == [str(one / "tiny"), str(two / "tiny")]
        assert printed.err.count("nothing to do") == said
    assert (one / "tiny" / "config.pbtxt").exists()
    assert (two / "config.json").exists()
