"""One training run in memory-mapped arrays, from a seed, that can be killed and started again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mskscreen.errors import ProtocolError
from mskscreen.networks import ScreeningNetwork
from mskscreen.networks.checkpoint import not_finite
from mskscreen.storage import replacing
from mskscreen.training.depthwise import QuickDepthwise
from mskscreen.training.optimise import average, set_rate
from mskscreen.training.phantoms import PhantomArrays
from mskscreen.training.randomise import randomise
from mskscreen.training.supervision import Targets, Weights, screening_loss


@dataclass(frozen=True)
class Phase:
    """Part of a run: how many steps, on images of `size` pixels, which shares of them as close-ups and turned.

    `worn` multiplies the probability of changes that wipe out fine detail (see `randomise`).
    """

    steps: int
    size: int
    close: float = 0.0
    turned: float = 0.35
    worn: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: one warm-up, then a straight line down; the average of the weights is kept.

    The phases follow each other: small images are learned from several times faster, and what is learned there
    carries over (progressive resizing; Tan & Le, arXiv:2104.00298). A close-up is small and yet as fine as the
    whole image, and holds the abnormality where there is one. Modules named in `frozen` keep their weights
    and statistics: edges and textures are the same in photographs, and the layers that see most pixels cost most.
    `heads` multiplies the learning rate of the layers that do not start from pre-trained weights; `last` is the
    share of the rate that is left at the end; `averaging` is the decay of the exponential moving average per step;
    the state is kept every `keep` steps; in `bf16` all but weights, losses and norms is of half precision.
    """

    phases: tuple[Phase, ...]
    frozen: tuple[str, ...] = ()
    batch: int = 32
    rate: float = 4e-4
    heads: float = 3.0
    decay: float = 0.02
    warmup: float = 0.05
    last: float = 0.0
    averaging: float = 0.995
    keep: int = 100
    seed: int = 0
    precision: Literal["f32", "bf16"] = "f32"

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
    """All that changes in a run; `step` counts those done, and `asked` says of what run it is."""

    network: ScreeningNetwork
    average: ScreeningNetwork
    optimiser: torch.optim.Optimizer
    asked: str
    step: int = 0


def fit(
    network: ScreeningNetwork,
    arrays: PhantomArrays,
    schedule: Schedule,
    folder: Path,
    report: Callable[[int, int, float], None] = lambda *_: None,
    weights: Weights | None = None,
) -> ScreeningNetwork:
    """Train `network` and return it with averaged weights.

    State is written to `folder` every `schedule.keep` steps, so a killed run goes on from there and ends with the
    same weights. `report` gets step, steps in all and the loss.

    Raises ProtocolError where the loss or a weight stops being finite (what was kept before is whole), and where
    `folder` holds the state of another schedule, other weights of the loss, or images of another number or size.
    """
    network.to(memory_format=torch.channels_last)
    weights = weights or Weights()
    asked = repr((schedule, weights, arrays.images.shape))
    state = _State(network, copy.deepcopy(network).eval(), _optimiser(network, schedule), asked)
    _resume(folder, state)
    network.train()
    for name in schedule.frozen:
        network.get_submodule(name).eval().requires_grad_(False)
    for images, targets in _batches(arrays, schedule, state.step):
        torch.manual_seed(_seed(schedule, state.step))
        _set_rate(state.optimiser, schedule, state.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=schedule.precision == "bf16"), QuickDepthwise():
            loss = screening_loss(state.network, images, targets, weights)
        if not math.isfinite(loss.item()):
            raise ProtocolError(f"the loss is not finite at step {state.step}; lower the learning rate")
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), 2.0)
        state.optimiser.step()
        average(state.average, state.network, schedule.averaging, state.step)
        state.step += 1
        if state.step % schedule.keep == 0 or state.step == schedule.steps:
            _save(folder, state)
        report(state.step, schedule.steps, loss.item())
    _require_finite(state)
    return state.average


def draw_back(trained: ScreeningNetwork, first: ScreeningNetwork, share: float) -> None:
    """Leave `share` of the weights and statistics of `trained`; the rest becomes that of `first`.

    It forgets what was learned by heart and keeps what both know (Wortsman et al., arXiv:2109.01903).
    """
    before = first.state_dict()
    with torch.no_grad():
        for name, value in trained.state_dict().items():
            if value.is_floating_point():
                value.lerp_(before[name], 1 - share)


@torch.no_grad()
def settle(network: ScreeningNetwork, arrays: PhantomArrays, frozen: tuple[str, ...], count: int = 384) -> None:
    """Take the statistics of batch normalisation anew, from `count` whole undisturbed images, none of them a twin.

    Those of training are of close-ups and disturbed views, and an average of weights was never run at all
    (Izmailov et al., arXiv:1803.05407). Modules named in `frozen` keep theirs. The network is left evaluating.
    """
    network.train()
    for name in frozen:
        network.get_submodule(name).eval()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean of the batches
    views = np.union1d(arrays.paired, arrays.alone)
    chosen = np.random.default_rng(0).permutation(views)[:count]
    for start in range(0, len(chosen), 64):
        network(_as_input(arrays.images[np.sort(chosen[start : start + 64])]))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


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


def _as_input(images: np.ndarray, size: int | None = None) -> Tensor:
    """Images (n, 1, H, W) in [0, 1] of uint8 ones (n, H, W), no larger than `size`."""
    pixels = torch.from_numpy(np.array(images))[:, None]
    if size is not None and size < pixels.shape[2] and len(pixels):
        pixels = functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    return pixels.float().div_(255)


def _seed(schedule: Schedule, step: int) -> int:
    return schedule.seed * 1_000_000 + step


def _batches(arrays: PhantomArrays, schedule: Schedule, first: int) -> Iterator[tuple[Tensor, Targets]]:
    """The batches of the steps from number `first` on; while one is learned from, the next is made."""
    with ThreadPoolExecutor(1) as maker:
        coming = None
        for step in range(first, schedule.steps + 1):
            batch = coming
            coming = maker.submit(_batch, arrays, schedule, step) if step < schedule.steps else None
            if batch:
                yield batch.result()


def _batch(arrays: PhantomArrays, schedule: Schedule, step: int) -> tuple[Tensor, Targets]:
    """The images of one step: abnormal ones together with their twins, and others.

    A pair is shown through the same random changes, so all that distinguishes its images is the abnormality.
    """
    paired, others = arrays.paired, arrays.alone
    pairs = round(schedule.batch * len(paired) / len(arrays))
    first = _draw(paired, pairs, schedule, step)
    rest = _draw(others, schedule.batch - 2 * pairs, schedule, step)
    seed, phase = _seed(schedule, step), schedule.phase(step)
    views = [
        _view(arrays, chosen, like, phase, seed + part)
        for chosen, like, part in (
            (first, first, 0),
            (arrays.twins[first], first, 0),
            (rest, np.resize(first, len(rest)) if len(first) else rest, 500_000),
        )
        if len(chosen)
    ]
    images, masks = (torch.cat(column) for column in zip(*views, strict=True))
    chosen = np.concatenate([first, arrays.twins[first], rest])
    abnormal, joint = (torch.from_numpy(labels[chosen]) for labels in (arrays.abnormal, arrays.joint))
    return images.contiguous(memory_format=torch.channels_last), Targets(abnormal, joint, masks)


def _draw(pool: np.ndarray, count: int, schedule: Schedule, step: int) -> np.ndarray:
    """The members of `pool` that have their turn: every pass over it goes in an order of its own."""
    steps_per_pass = max(1, len(pool) // max(1, count))
    order = np.random.default_rng((schedule.seed, step // steps_per_pass)).permutation(pool)
    start = step % steps_per_pass * count
    return order[start : start + count]


def _view(
    arrays: PhantomArrays, chosen: np.ndarray, like: np.ndarray, phase: Phase, seed: int
) -> tuple[Tensor, Tensor]:
    """Views of the images `chosen`, the first of them close-ups of where the masks of the images `like` mark.

    Close-ups of normal images thus show the places that those of abnormal ones show.
    """
    generator = torch.Generator().manual_seed(seed)
    near = round(phase.close * len(chosen))
    close = [_as_input(array[chosen[:near]]) for array in (arrays.images, arrays.masks)]
    focus = _points(arrays.masks[like[:near]], generator)
    # randomise samples single pixels, which would alias.
    wide = [_as_input(array[chosen[near:]], phase.size) for array in (arrays.images, arrays.masks)]
    views = [
        randomise(images, masks, generator, phase.size, points, phase.turned, phase.worn)
        for (images, masks), points in ((close, focus), (wide, None))
        if len(images)
    ]
    shown, marked = (torch.cat(column) for column in zip(*views, strict=True))
    return shown, marked


def _points(masks: np.ndarray, generator: torch.Generator) -> Tensor:
    """A random point (x, y) in [-1, 1] of every mask (n, H, W), or of the field where the mask is empty."""
    draws = torch.rand(len(masks), 3, generator=generator)
    points = draws[:, 1:] * 1.4 - 0.7
    for index, mask in enumerate(masks):
        inside = np.argwhere(mask > 127)
        if len(inside):
            row, column = inside[int(draws[index, 0] * len(inside))]
            points[index] = torch.tensor([column / mask.shape[1], row / mask.shape[0]]) * 2 - 1
    return points


def _optimiser(network: ScreeningNetwork, schedule: Schedule) -> torch.optim.Optimizer:
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": backbone, "factor": 1.0}, {"params": heads, "factor": schedule.heads}]
    return torch.optim.AdamW(groups, lr=schedule.rate, weight_decay=schedule.decay)


def _set_rate(optimiser: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    total = schedule.steps
    warm = max(1, round(schedule.warmup * total))
    # Li et al., Budgeted training, arXiv:1905.04753: best where the steps are few.
    share = min((step + 1) / warm, 1 - (1 - schedule.last) * (step - warm) / max(1, total - warm))
    set_rate(optimiser, schedule.rate * share)


def _require_finite(state: _State) -> None:
    """Raise ProtocolError where a weight is not finite: no loss shows what the last step has done."""
    for network in (state.network, state.average):
        if name := not_finite(network.state_dict()):
            raise ProtocolError(f"the tensor {name} is not finite at step {state.step}; lower the learning rate")


def _save(folder: Path, state: _State) -> None:
    _require_finite(state)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: getattr(state, name).state_dict() for name in _PARTS}
    with replacing(folder / "state.pt") as partial:
        torch.save(parts | {"step": state.step, "asked": state.asked}, partial)


def _resume(folder: Path, state: _State) -> None:
    """Take up the state that an earlier run left, if there is one."""
    path = folder / "state.pt"
    if path.exists():
        parts = torch.load(path, weights_only=True)
        # A state from before this was recorded is taken on trust.
        if parts.get("asked", state.asked) != state.asked:
            raise ProtocolError(f"{path}: is of another run; name another folder, or delete it to begin anew")
        for name in _PARTS:
            getattr(state, name).load_state_dict(parts[name])
        state.step = int(parts["step"])


_PARTS = ("network", "average", "optimiser")
