"""One training run in memory-mapped arrays, from a seed, that can be killed and started again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mskscreen.errors import ProtocolError
from mskscreen.networks import ScreeningNetwork
from mskscreen.storage import replacing
from mskscreen.training.phantoms import PhantomArrays
from mskscreen.training.randomise import randomise
from mskscreen.training.supervision import Targets, Weights, screening_loss


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: one warm-up, then a cosine to zero; the average of the weights is kept.

    `heads` multiplies the learning rate of the layers that do not start from pre-trained weights;
    `averaging` is the decay of the exponential moving average per step.
    """

    epochs: int = 3
    batch: int = 32
    rate: float = 4e-4
    heads: float = 3.0
    decay: float = 0.02
    warmup: float = 0.05
    averaging: float = 0.995
    seed: int = 0
    bfloat16: bool = False


def fit(
    network: ScreeningNetwork,
    arrays: PhantomArrays,
    schedule: Schedule,
    folder: Path,
    report: Callable[[int, int, float], None] = lambda *_: None,
    weights: Weights | None = None,
) -> ScreeningNetwork:
    """Train `network` and return it with averaged weights.

    State is written to `folder` after every epoch, so a killed run goes on from its last whole epoch and
    ends with the same weights. `report` gets step, steps in all and the loss.

    Raises ProtocolError where the loss stops being finite.
    """
    network.to(memory_format=torch.channels_last)
    optimiser = _optimiser(network, schedule)
    average = copy.deepcopy(network).eval()
    steps_per_epoch = len(arrays) // schedule.batch
    total = steps_per_epoch * schedule.epochs
    first = _resume(folder, network, average, optimiser)
    for epoch in range(first, schedule.epochs):
        network.train()
        torch.manual_seed(schedule.seed * 1000 + epoch)
        for step, (images, targets) in enumerate(_batches(arrays, schedule, epoch), epoch * steps_per_epoch):
            _set_rate(optimiser, schedule, step, total)
            with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bfloat16):
                loss = screening_loss(network, images, targets, weights or Weights())
            if not math.isfinite(loss.item()):
                raise ProtocolError(f"the loss is not finite at step {step}; lower the learning rate")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 2.0)
            optimiser.step()
            _average(average, network, min(schedule.averaging, (1 + step) / (10 + step)))
            report(step + 1, total, loss.item())
        _save(folder, epoch + 1, network, average, optimiser)
    return average


@torch.inference_mode()
def predict(
    network: ScreeningNetwork, images: np.ndarray, batch: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (n, 2) and (n, 7) and pooled features (n, d) of uint8 images (n, H, W)."""
    network.eval()
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(images), batch):
        features = network.features(_as_input(images[start : start + batch]))
        pred1, pred2, _ = network.read_out(features)[:3]
        parts.append((pred1.numpy(), pred2.numpy(), network.pooled(features).numpy()))
    first, second, third = (np.concatenate(column) for column in zip(*parts, strict=True))
    return first, second, third


def _as_input(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(images)).float().div_(255)[:, None]


def _batches(arrays: PhantomArrays, schedule: Schedule, epoch: int) -> Iterator[tuple[Tensor, Targets]]:
    order = np.random.default_rng((schedule.seed, epoch)).permutation(len(arrays))
    generator = torch.Generator().manual_seed(schedule.seed * 1000 + epoch)
    for start in range(0, len(order) - schedule.batch + 1, schedule.batch):
        chosen = np.sort(order[start : start + schedule.batch])
        images, masks = randomise(_as_input(arrays.images[chosen]), _as_input(arrays.masks[chosen]), generator)
        abnormal, joint = (torch.from_numpy(labels[chosen]) for labels in (arrays.abnormal, arrays.joint))
        yield images.contiguous(memory_format=torch.channels_last), Targets(abnormal, joint, masks)


def _optimiser(network: ScreeningNetwork, schedule: Schedule) -> torch.optim.Optimizer:
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": backbone, "factor": 1.0}, {"params": heads, "factor": schedule.heads}]
    return torch.optim.AdamW(groups, lr=schedule.rate, weight_decay=schedule.decay)


def _set_rate(optimiser: torch.optim.Optimizer, schedule: Schedule, step: int, total: int) -> None:
    warm = max(1, round(schedule.warmup * total))
    share = (
        (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    )
    for group in optimiser.param_groups:
        group["lr"] = schedule.rate * share * group["factor"]


@torch.no_grad()
def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for kept, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(value, 1 - decay)
        else:
            kept.copy_(value)


def _save(
    folder: Path, epochs: int, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "epochs": epochs,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with replacing(folder / "state.pt") as partial:
        torch.save(state, partial)


def _resume(folder: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load the state an earlier run left and return the number of whole epochs behind it."""
    path = folder / "state.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["epochs"])
