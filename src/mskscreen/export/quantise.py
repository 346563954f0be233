"""Static int8 with one scale a channel, by NNCF on the ONNX graph; single layers can go back to f32.

Weights take 7 of the 8 bits (NNCF's overflow fix, which leaves out depthwise layers), so that processors without
VNNI or AMX instructions, which add products in 16 bits, do not saturate.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nncf
import numpy as np
import onnx
import onnxruntime
from nncf.quantization.advanced_parameters import (
    AdvancedQuantizationParameters,
    OverflowFix,
    QuantizationParameters,
)

from mskscreen.contract import METADATA_KEY
from mskscreen.errors import ModelError
from mskscreen.inference.backends import reason_of
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.onnx_file import read_metadata

# Smaller matrices (the shared layer and the two heads) are a thousandth of the work.
_SMALLEST_MATRIX = 1 << 20
_RANKED_ON = 4


class Quantised:
    """The int8 form of an ONNX model of one input: `layers` names those with int8 weights.

    Convolutions and large matrices on the way to the scores are quantised; what computes map and novelty alone
    is not, and uses the same weights. Raises ModelError where there is nothing to quantise, or it cannot be done.
    """

    def __init__(self, path: Path, images: np.ndarray) -> None:
        """`images` (n, 1, H, W) calibrate the activations."""
        read_metadata(path)
        self._path = path
        with self._errors():
            self._f32 = onnx.load(os.fspath(path), load_external_data=False)
        _name_nodes(self._f32)
        self._images = images
        self._original = {node.name: node for node in self._f32.graph.node}
        heavy, ignored = _scope(self._f32)
        if not heavy:
            raise ModelError(f"{path}: has no convolution or large matrix to quantise")
        nncf.set_log_level(logging.ERROR)
        with self._errors(), contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            batches = list(_batches(self._f32, images))
            self._int8 = nncf.quantize(
                self._f32,
                nncf.Dataset(batches),
                subset_size=len(batches),
                ignored_scope=nncf.IgnoredScope(names=ignored),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE,
                    activations_quantization_params=QuantizationParameters(per_channel=False),
                ),
            )
        weights = _int8_weights(self._int8)
        self.layers = [node.name for node in self._int8.graph.node if weights & set(node.input)]

    def model(self, keep_f32: Iterable[str] = ()) -> onnx.ModelProto:
        """The int8 model in which the layers named `keep_f32` compute as they did.

        Raises ModelError where one is not in `layers`.
        """
        model, kept = copy.deepcopy(self._int8), set(keep_f32)
        if unknown := kept - (set(self.layers) & self._original.keys()):
            raise ModelError(f"{self._path}: has no int8 layer {', '.join(sorted(unknown))}")
        original = {tensor.name: tensor for tensor in self._f32.graph.initializer}
        held = {tensor.name: tensor for tensor in model.graph.initializer}
        weights = _int8_weights(model)
        dequantised: dict[str, str] = {}
        for node in model.graph.node:
            before = self._original.get(node.name)
            if before is None:
                continue
            if node.name in kept:
                node.input[:] = before.input
                for name in set(before.input) & original.keys():
                    if name in held:  # NNCF corrects the biases of quantised layers
                        held[name].CopyFrom(original[name])
                    else:
                        model.graph.initializer.append(original[name])
            dequantised |= {old: new for old, new in zip(before.input, node.input, strict=True) if new in weights}
        for node in model.graph.node:
            if node.name not in kept and node.op_type != "DequantizeLinear":
                node.input[:] = [dequantised.get(name, name) for name in node.input]
        _drop_unused(model)
        return model

    def ranking(self) -> list[str]:
        """The layers, that first whose int8 form alone changes the outputs most."""
        images = self._images[:_RANKED_ON]
        errors = {}
        with self._errors():
            expected = _run(self._f32, images)
        for layer in self.layers:
            alone = self.model([name for name in self.layers if name != layer])
            with self._errors():
                found = _run(alone, images)
            errors[layer] = max(_relative_error(found[name], expected[name]) for name in expected)
        return sorted(self.layers, key=lambda layer: errors[layer], reverse=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # those of onnx, NNCF and ONNX Runtime share no base class
            raise ModelError(f"{self._path}: cannot be quantised ({reason_of(error)})") from error


def quantise_on_noise(path: Path, out: Path) -> Path:
    """Write the int8 form of a model, calibrated on noise: fit for measuring speed, and for nothing else."""
    contract = read_contract(path)
    images = np.random.default_rng(0).random((_RANKED_ON, 1, *contract.input_size), np.float32)
    model = Quantised(path, images).model()
    onnx.helper.set_model_props(model, {METADATA_KEY: replace(contract, precision="int8").to_json()})
    out.write_bytes(model.SerializeToString())
    return out


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give each node a name of its own: layers are told apart by their names, and NNCF makes up its own else."""
    numbers, taken, seen = itertools.count(), {node.name for node in model.graph.node}, {""}
    for node in model.graph.node:
        if node.name in seen:
            node.name = next(name for i in numbers if (name := f"{node.op_type}_{i}") not in taken)
        seen.add(node.name)


def _batches(model: onnx.ModelProto, images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Images as the model takes them: in its fixed batch, else one by one; the last batch repeats what it has."""
    stored = {tensor.name for tensor in model.graph.initializer}
    port = next(port for port in model.graph.input if port.name not in stored)
    dimensions = port.type.tensor_type.shape.dim
    size = dimensions[0].dim_value if dimensions and dimensions[0].dim_value else 1
    for start in range(0, len(images), size):
        yield {port.name: np.resize(images[start : start + size], (size, *images.shape[1:]))}


def _scope(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of the nodes with weights that are to be quantised, and of the nodes that NNCF shall leave alone."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    to_scores = _ancestors(model, ["pred1", "pred2"])
    heavy = [
        node
        for node in model.graph.node
        if node.name in to_scores and _is_heavy(node, max((sizes.get(name, 0) for name in node.input), default=0))
    ]
    body = _ancestors(model, [output for node in heavy for output in node.output])
    names = [node.name for node in heavy]
    return names, [node.name for node in model.graph.node if node.name not in body & to_scores]


def _is_heavy(node: onnx.NodeProto, largest: int) -> bool:
    return largest > 0 and (
        node.op_type == "Conv" or (node.op_type in ("Gemm", "MatMul") and largest >= _SMALLEST_MATRIX)
    )


def _ancestors(model: onnx.ModelProto, tensors: Sequence[str]) -> set[str]:
    """Names of the nodes that the tensors are computed by."""
    producer = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    waiting = list(tensors)
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting.extend(node.input)
    return found


def _int8_weights(model: onnx.ModelProto) -> set[str]:
    """Tensors that are dequantised from stored weights."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }


def _drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes and weights that no output depends on."""
    used = _ancestors(model, [output.name for output in model.graph.output])
    nodes = [node for node in model.graph.node if node.name in used]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    needed = {name for node in nodes for name in node.input} | {output.name for output in model.graph.output}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def _run(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    results = [session.run(names, batch) for batch in _batches(model, images)]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*results, strict=True), strict=True)}


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)
