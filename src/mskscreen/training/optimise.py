"""Optimiser, learning rates, frozen modules and the average of the weights: what a protocol says of a step."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from mskscreen.errors import ProtocolError
from mskscreen.networks import ScreeningNetwork
from mskscreen.training.protocol import Protocol

# Both one-cycle numbers are those of torch's OneCycleLR.
_FIRST_OF_HIGHEST = 1 / 25
_LAST_OF_FIRST = 1e-4


def build_optimiser(protocol: Protocol, network: ScreeningNetwork, loss: nn.Module) -> torch.optim.Optimizer:
    """The optimiser, in groups that hold the `factor` of their rate; biases and norms do not decay."""
    backbone = {id(parameter) for parameter in network.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in [*network.parameters(), *loss.parameters()]:
        groups.setdefault((id(parameter) in backbone, parameter.ndim > 1), []).append(parameter)
    described = [
        {
            "params": parameters,
            "factor": 1.0 if old else protocol.heads,
            "weight_decay": protocol.decay if decays else 0.0,
        }
        for (old, decays), parameters in groups.items()
    ]
    return _OPTIMISERS[protocol.optimiser](protocol, described)


# Fused: one pass over the weights instead of several, which of VGG's took a fifth of a step.
_OPTIMISERS: dict[str, Callable[[Protocol, list[dict]], torch.optim.Optimizer]] = {
    "adamw": lambda protocol, groups: torch.optim.AdamW(groups, protocol.rate, fused=True),
    "adam": lambda protocol, groups: torch.optim.Adam(groups, protocol.rate, fused=True),
    "sgd": lambda protocol, groups: torch.optim.SGD(
        groups, protocol.rate, protocol.momentum, nesterov=protocol.momentum > 0, fused=True
    ),
}


def rate(protocol: Protocol, step: int, total: int, losses: Sequence[float]) -> float:
    """Learning rate of step number `step` of `total`, a pure function, so that nothing of it needs saving.

    `losses` are the development losses of the epochs so far, which only the plateau looks at.
    """
    return protocol.rate * _SCHEDULES[protocol.schedule](protocol, step, total, losses)


def _one_cycle(protocol: Protocol, step: int, total: int, _: Sequence[float]) -> float:
    """Up and down along cosines (Smith & Topin, arXiv:1708.07120), without the cycle of the momentum."""
    top = protocol.warmup * total - 1
    if step <= top:
        return _between(_FIRST_OF_HIGHEST, 1, step / top if top > 0 else 1)
    return _between(1, _FIRST_OF_HIGHEST * _LAST_OF_FIRST, (step - top) / max(1, total - 1 - top))


def _cosine(protocol: Protocol, step: int, total: int, _: Sequence[float]) -> float:
    warm = round(protocol.warmup * total)
    return (step + 1) / warm if step < warm else _between(1, 0, (step - warm) / max(1, total - warm))


def _plateau(protocol: Protocol, _: int, __: int, losses: Sequence[float]) -> float:
    share, best, waited = 1.0, math.inf, 0
    for loss in losses:
        waited = 0 if loss < best else waited + 1
        best = min(best, loss)
        if waited == protocol.plateau_patience:
            share, waited = share * protocol.plateau_factor, 0
    return share


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


_SCHEDULES: dict[str, Callable[[Protocol, int, int, Sequence[float]], float]] = {
    "one-cycle": _one_cycle,
    "cosine": _cosine,
    "plateau": _plateau,
    "constant": lambda *_: 1.0,
}


def set_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Give every group its share of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = value * group["factor"]


def begin_epoch(protocol: Protocol, network: ScreeningNetwork, epoch: int) -> None:
    """Put the network in train mode, but for the modules that are frozen in this epoch.

    Their parameters get no gradient and their norms keep their statistics. Raises ProtocolError where a name is
    not a module of the network, or nothing is left to learn.
    """
    network.train().requires_grad_(True)
    for name, epochs in protocol.frozen.items():
        try:
            module = network.get_submodule(name)
        except AttributeError:
            known = [known for known, _ in network.named_modules() if known]
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ProtocolError(
                f"key freeze: {protocol.architecture} has no module '{name}'; the nearest is '{nearest}'"
            ) from None
        if epoch < epochs:
            module.eval().requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ProtocolError(f"key freeze: '{protocol.freeze}' leaves nothing to learn; free a module")


@torch.no_grad()
def average(kept: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the average of the weights by one step; at first it moves faster, and so forgets how the run began."""
    decay = min(decay, (1 + step) / (10 + step))
    for old, new in zip(kept.state_dict().values(), network.state_dict().values(), strict=True):
        if old.dtype.is_floating_point:
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)
