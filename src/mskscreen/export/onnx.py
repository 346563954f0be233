"""One ONNX file that carries its contract, checked on both engines before it gets its name."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch

from mskscreen.contract import METADATA_KEY, SCHEMA, MapOutput, ModelContract
from mskscreen.errors import ModelError
from mskscreen.inference import open_engine, selftest
from mskscreen.inference.onnx_file import content_digest, write_metadata
from mskscreen.inference.precision import Precision
from mskscreen.networks import ScreeningNetwork
from mskscreen.networks.checkpoint import require_its_network
from mskscreen.storage import replacing

PARITY = 1e-3
_BATCHES = (1, 3)

Outputs = dict[str, np.ndarray]


def export_onnx(network: ScreeningNetwork, contract: ModelContract, path: Path) -> ModelContract:
    """Write `network` in eval mode to `path` as one ONNX file with dynamic batch, and return its contract.

    Input and outputs are those of `ScreeningNetwork.forward` at `contract.input_size`; batch norms are folded
    and the map reuses the weights of the forward pass. The contract written is `contract` with its `map`, digest
    and self-test filled in. The file is written under a temporary name and renamed once `check_parity` has passed.

    Raises ModelError where network and contract disagree or an engine does not reproduce the network.
    """
    _check_agreement(network, contract)
    method = MapOutput(method="hirescam", layer="last feature map", stride=network.architecture.stride)
    contract = replace(contract, map=method)
    with replacing(path) as partial, _evaluating(network):
        _write(network, contract, partial)
        check_parity(partial, network, contract.input_size)
        return complete(partial, contract)


def complete(path: Path, contract: ModelContract) -> ModelContract:
    """Write `contract` into an ONNX file that has one, with the digest of its content and its self-test.

    Returns the contract as written. Raises ModelError where ONNX Runtime cannot run the file.
    """
    precision = typing.cast(Precision, contract.precision)
    engine = open_engine(path, "onnxruntime", precision, unapproved=True)
    contract = replace(
        contract, schema=SCHEMA, content_sha256=content_digest(path), selftest=selftest.record(engine)
    )
    write_metadata(path, METADATA_KEY, contract.to_json(), path)
    return contract


def check_parity(path: Path, network: ScreeningNetwork, input_size: tuple[int, int]) -> dict[str, float]:
    """Run both engines against torch on every output, at batch 1 and 3, on random images.

    Returns `engine/output` -> largest difference, relative to the largest absolute value of the output.

    Raises ModelError where one exceeds 1e-3 or an engine cannot run the file.
    """
    generator = torch.Generator().manual_seed(0)
    differences: dict[str, float] = {}
    images = [torch.rand(batch, 1, *input_size, generator=generator) for batch in _BATCHES]
    with _evaluating(network), torch.inference_mode():
        expected = [dict(zip(network.output_names, network(image), strict=True)) for image in images]
    for engine, run in {"openvino": _openvino, "onnxruntime": _onnxruntime}.items():
        try:
            results = run(path, [image.numpy() for image in images])
        except Exception as error:  # those of the engines share no base class
            raise ModelError(
                f"model file '{path.name}': {engine} cannot run it ({type(error).__name__})"
            ) from error
        for reference, found in zip(expected, results, strict=True):
            for name, tensor in reference.items():
                key = f"{engine}/{name}"
                differences[key] = max(differences.get(key, 0.0), _difference(found, name, tensor.numpy()))
    worst = max(differences, key=lambda key: differences[key])
    if differences[worst] > PARITY:
        raise ModelError(
            f"model file '{path.name}': {worst} differs from torch by {differences[worst]:.2g} of its range, more "
            f"than {PARITY:g}; the weights may be damaged or too large for f32, so it is not exported"
        )
    return differences


def _write(network: ScreeningNetwork, contract: ModelContract, path: Path) -> None:
    exported = torch.onnx.export(
        network,
        (torch.zeros(2, 1, *contract.input_size),),
        dynamo=True,
        input_names=["image"],
        output_names=list(network.output_names),
        dynamic_shapes={"image": {0: "batch"}},
        verbose=False,
    )
    program = typing.cast(torch.onnx.ONNXProgram, exported)
    _forget_origin(program.model)
    program.model.metadata_props[METADATA_KEY] = contract.to_json()
    program.save(path, external_data=False)


def _forget_origin(model: typing.Any) -> None:
    """Drop what the exporter notes at every node: stack traces, which hold paths of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()


def _check_agreement(network: ScreeningNetwork, contract: ModelContract) -> None:
    require_its_network(contract, network)
    if (network.novelty is None) != (contract.novelty is None):
        raise ModelError(
            f"contract of {contract.title}: field novelty and the network's novelty output must both be "
            "there or both be missing"
        )


@contextlib.contextmanager
def _evaluating(network: ScreeningNetwork) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _difference(found: Outputs, name: str, expected: np.ndarray) -> float:
    if name not in found or found[name].shape != expected.shape:
        return float("inf")
    difference = float(np.abs(found[name] - expected).max() / max(np.abs(expected).max(), 1e-6))
    # What is not a number on either side counts as a difference.
    return difference if np.isfinite(difference) else float("inf")


def _openvino(path: Path, batches: list[np.ndarray]) -> list[Outputs]:
    core = openvino.Core()
    # Where the CPU has bfloat16 units OpenVINO uses them unless told otherwise.
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in model.outputs]
    return [{name: result[name].copy() for name in names} for result in (model(batch) for batch in batches)]


def _onnxruntime(path: Path, batches: list[np.ndarray]) -> list[Outputs]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, {"image": batch}), strict=True)) for batch in batches]
