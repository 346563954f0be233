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
from typing import Any

from mskscreen.contract import METADATA_KEY
from mskscreen.errors import ModelError
from mskscreen.inference.backends import Shape
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.engines import Engine, EngineName, expected_outputs, open_engine
from mskscreen.inference.precision import sha256_of
from mskscreen.inference.remote import SHA256_KEY
from mskscreen.storage import replacing, write_text

_LARGEST_BATCH = 8
# Both servers look for version 1 there.
_FILE = Path("1", "model.onnx")
_ELSEWHERE = "choose another folder, or remove that model first"


def write_triton(model: Path, folder: Path, *, unapproved: bool = False) -> tuple[Path, bool]:
    """Write `folder/NAME/config.pbtxt` and `folder/NAME/1/model.onnx` for Triton's ONNX Runtime backend.

    The contract is in the configuration's parameters, where `Screener(remote=...)` finds it. Returns the folder of
    the model and whether anything was written: what is there of this very file is left as it is. Raises ModelError
    where the folder holds another model of the same name or another contract of this one, where the model cannot
    be run, or where it holds weights of another precision than f32 that did not pass their gate on this engine and
    this kind of machine, unless `unapproved`.
    """
    engine = _open(model, "onnxruntime", unapproved)
    place, here = _place(engine, folder)
    config = place / "config.pbtxt"
    if here and config.is_file():
        # A description beside a foreign file can change without it.
        if _quoted(engine.contract.to_json()) not in config.read_text(encoding="utf-8", errors="replace"):
            raise ModelError(f"{config}: holds another contract of this model; {_ELSEWHERE}")
        return place, False
    _copy(engine, place)
    write_text(config, triton_config(engine, place.name))
    return place, True


def write_ovms(model: Path, folder: Path, *, unapproved: bool = False) -> tuple[Path, bool]:
    """Write `folder/config.json` and `folder/NAME/1/model.onnx` for OpenVINO Model Server.

    A configuration that is there already keeps its other models. Returns and raises what `write_triton` does, and
    raises ModelError also where the configuration is not one.
    """
    engine = _open(model, "openvino", unapproved)
    place, here = _place(engine, folder)
    config = folder / "config.json"
    try:
        value = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {"model_config_list": []}
        entries = list(value["model_config_list"])
        bases = {entry["config"]["name"]: entry["config"]["base_path"] for entry in entries}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{config}: is not a configuration of OpenVINO Model Server; choose another") from error
    if here and place.name in bases:
        return place, False
    if bases.get(place.name, place.name) != place.name:
        raise ModelError(f"{config}: names another folder for a model '{place.name}'; {_ELSEWHERE}")
    _copy(engine, place)
    if place.name not in bases:
        value["model_config_list"] = [*entries, {"config": ovms_config(place.name)}]
        write_text(config, json.dumps(value, indent=1) + "\n")
    return place, True


def triton_config(engine: Engine, name: str) -> str:
    """The text form of a ModelConfig message, with names and sizes of the graph, which the server compares."""
    contract, backend = engine.contract, engine.backend
    ((image, given),) = backend.inputs.items()
    rows = contract.batch or (given[0] if given else None)
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {0 if rows else _LARGEST_BATCH}",
        _port("input", image, given, (1, *contract.input_size), rows),
        *(
            _port("output", output, backend.outputs[output], shape, rows)
            for output, shape in expected_outputs(contract).items()
        ),
        "instance_group [ { kind: KIND_CPU } ]",
        *["dynamic_batching { }"] * (not rows),
    ]
    for key, value in ((METADATA_KEY, contract.to_json()), (SHA256_KEY, engine.digest)):
        lines.append(f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}")
    return "\n".join(lines) + "\n"


def ovms_config(name: str) -> dict[str, object]:
    """The entry of a model; its path is relative to the configuration."""
    plugin = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    return {"name": name, "base_path": name, "target_device": "CPU", "plugin_config": plugin}


def _open(model: Path, engine: EngineName, unapproved: bool) -> Engine:
    """The model in the precision of its file, since a server runs that file alone."""
    precision: Any = read_contract(model).precision
    return open_engine(model, engine, precision, unapproved=unapproved, cached=False)


def _place(engine: Engine, folder: Path) -> tuple[Path, bool]:
    """Where both servers look for the model, and whether it is there; its name becomes one safe for a folder.

    A model of the same name is no further version: Triton's configuration has one contract for all of them. Raises
    ModelError.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", engine.contract.name).strip(".-") or "model"
    place = folder / name
    found = {path.relative_to(place) for path in place.rglob("[!.]*") if path.is_file()}
    here = _FILE in found and sha256_of(place / _FILE) == engine.digest
    versions = {path.parts[0] for path in found if path.parts[0].isdecimal()}
    if found and (not here or versions != {_FILE.parts[0]}):
        raise ModelError(f"{place}: holds another model named '{name}'; {_ELSEWHERE}")
    return place, here


def _copy(engine: Engine, place: Path) -> None:
    file = place / _FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        shutil.copyfile(engine.path, partial)


def _port(kind: str, name: str, found: Shape, expected: tuple[int | None, ...], rows: int | None) -> str:
    """An input or output; `expected` is its shape without the batch `rows`, for one whose rank is dynamic."""
    sizes = [-1 if size is None else size for size in (expected if found is None else found[1:])]
    dims, more = [rows, *sizes] if rows else sizes, ""
    if not dims:
        # One number an image; a shape of a configuration may not be empty, so it is reshaped to nothing.
        dims, more = [1], "reshape { shape: [] } "
    return f"{kind} {{ name: {_quoted(name)} data_type: TYPE_FP32 dims: {dims} {more}}}"


def _quoted(text: str) -> str:
    """A string of protobuf's text format, whose escapes for ASCII are those of JSON."""
    return json.dumps(text)
