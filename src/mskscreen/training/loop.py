"""One training run in memory-mapped arrays, from a seed, that can be killed and started again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mskscreen.errors import ProtocolError
from mskscreen.networks import ScreeningNetwork, build_network
from mskscreen.storage import replacing
from mskscreen.training.phantoms import PhantomArrays
from mskscreen.training.randomise import randomise
from mskscreen.training.supervision import Targets, Weights, screening_loss


@dataclass(frozen=True)
class Phase:
    """Part of a run: how many steps, on images of `size` pixels, with a last feature map of this `stride`."""

    steps: int
    size: int
    stride: int


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: one warm-up, then a cosine to zero; the average of the weights is kept.

    The phases follow each other: small images and a coarse map are learned from several times faster, and what
    is learned there carries over (progressive resizing; Tan & Le, arXiv:2104.00298). `heads` multiplies the
    learning rate of the layers that do not start from pre-trained weights; `averaging` is the decay of the
    exponential moving average per step; the state is kept every `keep` steps.
    """

    phases: tuple[Phase, ...]
    batch: int = 32
    rate: float = 4e-4
    heads: float = 3.0
    decay: float = 0.02
    warmup: float = 0.05
    averaging: float = 0.995
    keep: int = 100
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """The phase that step number `step`, from 0, belongs to."""
        ends = np.cumsum([phase.steps for phase in self.phases])
        return self.phases[int(np.searchsorted(ends, step, side="right"))]


@dataclass
class _State:
    """All that changes in a run; `step` counts those done."""

    network: ScreeningNetwork
    average: ScreeningNetwork
    optimiser: torch.optim.Optimizer
    step: int = 0


def fit(
    network: ScreeningNetwork,
    arrays: PhantomArrays,
    schedule: Schedule,
    folder: Path,
    report: Callable[[int, int, float], None] = lambda *_: None,
    weights: Weights | None = None,
) -> ScreeningNetwork:
    """Train `network` and return it with averaged weights, at the stride of the last phase.

    State is written to `folder` every `schedule.keep` steps, so a killed run goes on from there and ends with the
    same weights. `report` gets step, steps in all and the loss.

    Raises ProtocolError where the loss stops being finite.
    """
    state = _State(network, copy.deepcopy(network), _optimiser(network, schedule))
    _resume(folder, state)
    stride = None
    while state.step < schedule.steps:
        phase = schedule.phase(state.step)
        if phase.stride != stride:
            stride = phase.stride
            _restride(state, stride, schedule)
        generator = torch.Generator().manual_seed(_seed(schedule, state.step))
        torch.manual_seed(_seed(schedule, state.step))
        images, targets = _batch(arrays, schedule, state.step, phase.size, generator)
        _set_rate(state.optimiser, schedule, state.step)
        loss = screening_loss(state.network, images, targets, weights or Weights())
        if not math.isfinite(loss.item()):
            raise ProtocolError(f"the loss is not finite at step {state.step}; lower the learning rate")
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), 2.0)
        state.optimiser.step()
        _average(state, schedule)
        state.step += 1
        if state.step % schedule.keep == 0 or state.step == schedule.steps:
            _save(folder, state)
        report(state.step, schedule.steps, loss.item())
    _restride(state, schedule.phases[-1].stride, schedule)
    return state.average.eval()


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


def _seed(schedule: Schedule, step: int) -> int:
    return schedule.seed * 1_000_000 + step


def _batch(
    arrays: PhantomArrays, schedule: Schedule, step: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Targets]:
    """The images of one step: every pass over the data goes in an order of its own."""
    steps_per_pass = len(arrays) // schedule.batch
    order = np.random.default_rng((schedule.seed, step // steps_per_pass)).permutation(len(arrays))
    start = step % steps_per_pass * schedule.batch
    chosen = np.sort(order[start : start + schedule.batch])
    images, masks = (_as_input(array[chosen]) for array in (arrays.images, arrays.masks))
    images, masks = randomise(images, masks, generator, size)
    abnormal, joint = (torch.from_numpy(labels[chosen]) for labels in (arrays.abnormal, arrays.joint))
    return images.contiguous(memory_format=torch.channels_last), Targets(abnormal, joint, masks)


def _optimiser(network: ScreeningNetwork, schedule: Schedule) -> torch.optim.Optimizer:
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": backbone, "factor": 1.0}, {"params": heads, "factor": schedule.heads}]
    return torch.optim.AdamW(groups, lr=schedule.rate, weight_decay=schedule.decay)


def _restride(state: _State, stride: int, schedule: Schedule) -> None:
    """Lay out both networks with another stride of the last feature map; the weights stay what they are."""
    networks = []
    for old in (state.network, state.average):
        new = build_network(old.architecture, output_stride=stride, dropout=old.dropout.p)
        new.load_state_dict(old.state_dict())
        networks.append(new.to(memory_format=torch.channels_last))
    state.network, state.average = networks[0].train(), networks[1].eval()
    moments = state.optimiser.state_dict()
    state.optimiser = _optimiser(state.network, schedule)
    state.optimiser.load_state_dict(moments)


def _set_rate(optimiser: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    total = schedule.steps
    warm = max(1, round(schedule.warmup * total))
    share = (
        (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    )
    for group in optimiser.param_groups:
        group["lr"] = schedule.rate * share * group["factor"]


@torch.no_grad()
def _average(state: _State, schedule: Schedule) -> None:
    decay = min(schedule.averaging, (1 + state.step) / (10 + state.step))
    for kept, value in zip(state.average.state_dict().values(), state.network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(value, 1 - decay)
        else:
            kept.copy_(value)


def _save(folder: Path, state: _State) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: getattr(state, name).state_dict() for name in _PARTS}
    with replacing(folder / "state.pt") as partial:
        torch.save(parts | {"step": state.step}, partial)


def _resume(folder: Path, state: _State) -> None:
    """Take up the state that an earlier run left, if there is one."""
    path = folder / "state.pt"
    if path.exists():
        parts = torch.load(path, weights_only=True)
        for name in _PARTS:
            getattr(state, name).load_state_dict(parts[name])
        state.step = int(parts["step"])


_PARTS = ("network", "average", "optimiser")
