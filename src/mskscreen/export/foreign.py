"""Makes a foreign ONNX file one of this project: a contract, a present operator set, and any batch size."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper, version_converter

from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.errors import ContractError, ModelError
from mskscreen.export.onnx import complete
from mskscreen.inference.backends import OnnxRuntime, reason_of
from mskscreen.inference.catalogue import described_by, published_as
from mskscreen.inference.engines import check_ports, expected_outputs
from mskscreen.inference.onnx_file import read_metadata
from mskscreen.inference.precision import sha256_of
from mskscreen.inference.screener import preprocessing_of
from mskscreen.storage import replacing

OPSET = 17
PARITY = 1e-4
# A file may hold a loop that never ends; the slowest network of the release needs seconds for an image.
MOST_SECONDS = 600.0
# Where a contract says what the import changed.
PROVENANCE_KEY = "import"
_SINGLES = 3

Outputs = list[dict[str, np.ndarray]]


def import_model(path: Path, out: Path, description: Path | None = None) -> ModelContract:
    """Write a foreign ONNX file to `out` with a contract, and return the contract.

    The contract is that of `description` (TOML with the fields of ModelContract), else that of the published file
    that `path` is. An operator set before 17 is converted and a fixed batch made dynamic, each only if both
    engines then give the original's outputs, those of the contract, on random images. What was changed stands in
    the provenance.

    Raises ContractError where the file is unknown and not described, or its description does not give its input;
    ModelError where it cannot be used.
    """
    metadata = read_metadata(path)
    if METADATA_KEY in metadata:
        raise ModelError(f"{path}: carries a contract already; it needs no import")
    contract = _contract(path, description)
    preprocessing_of(contract)
    content = path.read_bytes()
    try:
        original = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file ({error})") from error
    _without_weights_as_inputs(original)
    if not _opset(original):
        raise ModelError(f"{path}: does not say which version of ONNX's operators it uses; export it again")
    batch = _fixed_batch(original)
    backend = OnnxRuntime(path, None, "f32", 1)
    check_ports(path, replace(contract, batch=batch), backend, backend.types)
    rng = np.random.default_rng(0)
    images = [rng.random((batch or 1, 1, *contract.input_size), np.float32) for _ in range(_SINGLES)]
    try:
        results = [_onnxruntime(content, image) for image in images]
    except Exception as error:  # those of the engine share no base class
        raise ModelError(f"{path}: ONNX Runtime cannot run it ({reason_of(error)})") from error
    expected = [{name: result[name] for name in expected_outputs(contract)} for result in results]
    if not all(np.isfinite(value).all() for result in expected for value in result.values()):
        raise ModelError(f"{path}: gives outputs that are not finite; its weights are damaged")
    model = original
    notes: dict[str, Any] = {"file": path.name, "sha256": sha256_of(path), "opset": _opset(original)}
    if _opset(model) < OPSET:
        model = _converted(model, images, expected) or model
        notes["opset_converted"] = _opset(model)
    if batch is not None:
        found = _with_dynamic_batch(model)
        if _difference(found, [np.concatenate(images)], [_joined(expected)]) <= PARITY:
            model, batch = found, None
        notes["batch"] = batch or "made dynamic"
    notes["parity"] = _difference(model, images, expected)
    if notes["parity"] > PARITY:
        raise ModelError(f"{path}: cannot be run on OpenVINO, or gives other outputs there than on ONNX Runtime")
    protocol = {**contract.provenance.protocol, PROVENANCE_KEY: notes}
    contract = replace(contract, batch=batch, provenance=replace(contract.provenance, protocol=protocol))
    onnx.helper.set_model_props(model, {**metadata, METADATA_KEY: contract.to_json()})
    with replacing(out) as partial:
        partial.write_bytes(model.SerializeToString())
        return complete(partial, contract)


def _contract(path: Path, description: Path | None) -> ModelContract:
    if description is not None:
        return described_by(description)
    if known := published_as(path):
        return known.contract
    raise ContractError(
        f"{path}: is none of the six published files; describe it in a TOML file and give that with --describe"
    )


def _without_weights_as_inputs(model: onnx.ModelProto) -> None:
    """Early exporters list every weight among the inputs, which keeps engines from folding them.

    Before version 4 of its format ONNX asks for that.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [port for port in model.graph.input if port.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def _opset(model: onnx.ModelProto) -> int:
    """Version of the operators of ONNX itself, 0 where the file does not say."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _fixed_batch(model: onnx.ModelProto) -> int | None:
    """The batch that the first input fixes, or None; for engines, too, a size below 1 is one that is not known."""
    dimensions = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else ()
    return dimensions[0].dim_value if dimensions and dimensions[0].dim_value > 0 else None


def _converted(model: onnx.ModelProto, images: list[np.ndarray], expected: Outputs) -> onnx.ModelProto | None:
    """The model at operator set 17, or None where it cannot be converted or then computes something else."""
    try:
        found = version_converter.convert_version(model, OPSET)
    except Exception:  # the converter raises RuntimeError and its own errors for what it does not know
        return None
    return found if _difference(found, images, expected) <= PARITY else None


def _with_dynamic_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose ports, and reshapes to a constant shape, take the batch from the input."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    for port in (graph.input[0], *graph.output):
        dimensions = port.type.tensor_type.shape.dim
        if dimensions:
            dimensions[0].dim_param = "batch"
    del graph.value_info[:]
    shapes: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value_ints":
                tensor = numpy_helper.from_array(np.array(attribute.ints, np.int64))
                attribute.CopyFrom(helper.make_attribute("value", tensor))
            if attribute.name == "value":
                shapes[node.output[0]] = attribute.t
    for node in graph.node:
        if node.op_type == "Reshape" and len(node.input) > 1 and node.input[1] in shapes:
            tensor = shapes[node.input[1]]
            shape = numpy_helper.to_array(tensor).copy()
            if shape.size > 1 and shape[0] == model.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
                shape[0] = 0  # "as in the input"
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    return found


def _difference(model: onnx.ModelProto, batches: list[np.ndarray], expected: Outputs) -> float:
    """Largest difference on either engine, relative to an output's largest value.

    It is infinite where an engine cannot run the model or an output is not a number.
    """
    content = model.SerializeToString()
    worst = 0.0
    for batch, wanted in zip(batches, expected, strict=True):
        for run in (_onnxruntime, _openvino):
            try:
                found = run(content, batch)
            except Exception:  # those of the engines share no base class
                return float("inf")
            for name, value in wanted.items():
                if name not in found or found[name].shape != value.shape:
                    return float("inf")
                if not np.isfinite([found[name], value]).all():
                    return float("inf")
                worst = max(worst, float(np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-6)))
    return worst


def _joined(results: Outputs) -> dict[str, np.ndarray]:
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _onnxruntime(content: bytes, batch: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs; it is the first engine to run a graph, and is stopped where that does not end."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    run = onnxruntime.RunOptions()
    timer = threading.Timer(MOST_SECONDS, setattr, (run, "terminate", True))
    timer.start()
    try:
        values = session.run(names, {session.get_inputs()[0].name: batch}, run)
    except Exception as error:
        if run.terminate:
            raise TimeoutError(f"it has not ended after {MOST_SECONDS:g} seconds") from error
        raise
    finally:
        timer.cancel()
    return dict(zip(names, values, strict=True))


def _openvino(content: bytes, batch: np.ndarray) -> dict[str, np.ndarray]:
    core = openvino.Core()
    model = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = model({0: batch})
    return {name: value.copy() for port, value in results.items() for name in port.names}
