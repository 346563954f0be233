"""A checkpoint is one safetensors file: the weights, with the contract in its metadata."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.errors import ModelError, short
from mskscreen.inference.catalogue import parse_contract
from mskscreen.networks.network import ScreeningNetwork, build_network
from mskscreen.storage import replacing

_NOVELTY = "novelty."


def require_its_network(contract: ModelContract, network: ScreeningNetwork) -> None:
    """Raise ModelError where `contract.architecture` is not that of the network."""
    if contract.architecture != str(network.architecture):
        raise ModelError(
            f"contract of {contract.title}: field architecture is '{short(contract.architecture)}', "
            f"but the network is '{network.architecture}'"
        )


def save_checkpoint(network: ScreeningNetwork, contract: ModelContract, path: Path) -> None:
    """Write weights and contract to `path` under a temporary name, then rename.

    Raises ModelError where `contract.architecture` is not that of the network, or a tensor is not finite.
    """
    require_its_network(contract, network)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _require_finite(tensors, path)
    save_tensors(tensors, path, {METADATA_KEY: contract.to_json()})


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file whole or not at all, with the rights of any other new file.

    safetensors itself shuts out all but the owner, whatever the folder of a laboratory is set to.
    """
    with replacing(path) as partial:
        partial.touch()
        rights = stat.S_IMODE(partial.stat().st_mode)
        save_file(tensors, partial, metadata)
        partial.chmod(rights)


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with a value that is not finite, None where all are."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)


def _require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    if name := not_finite(tensors):
        raise ModelError(
            f"checkpoint '{path}': tensor '{name}' is not finite, which no image can be scored with; "
            "train anew with a lower rate"
        )


def load_checkpoint(path: Path) -> tuple[ScreeningNetwork, ModelContract]:
    """Read a checkpoint: its network in eval mode, and its contract.

    The network is laid out without memory first, so a file claims no more than its own size.

    Raises ModelError where the file is damaged, has no contract, or its weights do not fit its architecture or are
    not finite; ContractError where the contract is not valid.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"checkpoint '{path}' cannot be read ({short(error, 200)}); train or fetch it again"
        ) from error
    if METADATA_KEY not in metadata:
        raise ModelError(f"checkpoint '{path}' carries no contract; save it with mskscreen")
    contract = parse_contract(f"checkpoint '{path}'", metadata[METADATA_KEY], "train or fetch it again")
    try:
        with torch.device("meta"):
            network = build_network(contract.architecture)
    except ModelError as error:
        raise ModelError(f"checkpoint '{path}': {error}") from error
    _attach_novelty(network, tensors, path)
    _check_fit(network, tensors, path)
    _require_finite(tensors, path)
    network.load_state_dict(tensors, assign=True)
    return network.eval(), contract


def _attach_novelty(network: ScreeningNetwork, tensors: dict[str, Tensor], path: Path) -> None:
    found = {name.removeprefix(_NOVELTY): value for name, value in tensors.items() if name.startswith(_NOVELTY)}
    if not found:
        return
    if set(found) != {"mean", "components", "variances", "noise"} or found["noise"].numel() != 1:
        raise ModelError(f"checkpoint '{path}': the tensors of 'novelty' are incomplete; train or fetch it again")
    network.attach_novelty(found["mean"], found["components"], found["variances"], found["noise"].item())


def _check_fit(network: ScreeningNetwork, tensors: dict[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    for name in sorted(set(expected) ^ set(tensors)):
        fault = "is missing" if name in expected else "does not belong to it"
        raise ModelError(f"checkpoint '{path}': tensor '{short(name)}' {fault} ({network.architecture})")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
            raise ModelError(
                f"checkpoint '{path}': tensor '{name}' is {tuple(tensors[name].shape)} {tensors[name].dtype}, "
                f"expected {tuple(tensor.shape)} {tensor.dtype}"
            )
