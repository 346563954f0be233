"""Model repositories of servers: Triton Inference Server and OpenVINO Model Server.

Formats: model_config.proto of https://github.com/triton-inference-server/common, and the schema of config.json of
https://github.com/openvinotoolkit/model_server. OpenVINO is held to f32: on some processors its default is bf16,
which no gate may have approved.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.errors import ModelError
from mskscreen.inference.engines import open_engine
from mskscreen.inference.precision import sha256_of
from mskscreen.inference.remote import SHA256_KEY
from mskscreen.storage import replacing, write_text

_LARGEST_BATCH = 8


def write_triton(model: Path, folder: Path) -> Path:
    """Write `folder/NAME/config.pbtxt` and `folder/NAME/1/model.onnx` for Triton's ONNX Runtime backend.

    The contract is in the configuration's parameters, where `Screener(remote=...)` finds it. Returns the folder of
    the model. Raises ModelError where the model cannot be run.
    """
    contract = open_engine(model).contract
    place = _copy(contract.name, model, folder)
    write_text(place / "config.pbtxt", triton_config(contract, place.name, sha256_of(model)))
    return place


def write_ovms(model: Path, folder: Path) -> Path:
    """Write `folder/config.json` and `folder/NAME/1/model.onnx` for OpenVINO Model Server.

    A configuration that is there already keeps its other models. Returns the folder of the model. Raises
    ModelError where the model cannot be run or the configuration is not one.
    """
    place = _copy(open_engine(model).contract.name, model, folder)
    config = folder / "config.json"
    try:
        value = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {"model_config_list": []}
        others = [entry for entry in value["model_config_list"] if entry["config"]["name"] != place.name]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{config}: is not a configuration of OpenVINO Model Server; choose another") from error
    value["model_config_list"] = [*others, {"config": ovms_config(place.name)}]
    write_text(config, json.dumps(value, indent=1) + "\n")
    return place


def triton_config(contract: ModelContract, name: str, digest: str) -> str:
    """The text form of a ModelConfig message."""
    rows = contract.batch
    shapes: dict[str, list[int]] = {"image": [1, *contract.input_size], "pred1": [2], "pred2": [7]}
    if contract.map is not None:
        shapes["map"] = [1, -1, -1]
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {0 if rows else _LARGEST_BATCH}",
        *(_port(port, [rows, *shape] if rows else shape) for port, shape in shapes.items()),
    ]
    if contract.novelty is not None:
        # One number an image; a shape of a configuration may not be empty, so it is reshaped to nothing.
        lines.append(_port("novelty", [rows]) if rows else _port("novelty", [1], "reshape { shape: [] } "))
    lines += ["instance_group [ { kind: KIND_CPU } ]"] + ["dynamic_batching { }"] * (not rows)
    for key, value in ((METADATA_KEY, contract.to_json()), (SHA256_KEY, digest)):
        lines.append(f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}")
    return "\n".join(lines) + "\n"


def ovms_config(name: str) -> dict[str, object]:
    """The entry of a model; its path is relative to the configuration."""
    plugin = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    return {"name": name, "base_path": name, "target_device": "CPU", "plugin_config": plugin}


def _copy(name: str, model: Path, folder: Path) -> Path:
    """Put the model where both servers look for version 1; its name becomes one that is safe for a folder."""
    place = folder / (re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "model")
    (place / "1").mkdir(parents=True, exist_ok=True)
    with replacing(place / "1" / "model.onnx") as partial:
        shutil.copyfile(model, partial)
    return place


def _port(name: str, shape: list[int], more: str = "") -> str:
    kind = "input" if name == "image" else "output"
    return f"{kind} {{ name: {_quoted(name)} data_type: TYPE_FP32 dims: {shape} {more}}}"


def _quoted(text: str) -> str:
    """A string of protobuf's text format, whose escapes for ASCII are those of JSON."""
    return json.dumps(text)
