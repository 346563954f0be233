"""What a run costs: counted in multiply-adds before it is begun, and in hours once one has been timed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mskscreen.data.folds import training_rows
from mskscreen.data.manifest import Manifest
from mskscreen.errors import MskscreenError
from mskscreen.networks import build_network
from mskscreen.networks.complexity import Complexity, measure
from mskscreen.networks.weights import imagenet_at_hand
from mskscreen.search.plan import Plan
from mskscreen.search.space import Run
from mskscreen.training.learner import heritage
from mskscreen.training.material import preprocessing
from mskscreen.training.protocol import Protocol
from mskscreen.training.state import read_position

# A pass forward and, for the gradients of activations and of weights, twice as much backward.
_TRAINING = 3
_REFERENCE = Protocol(architecture="resnet18", init="random", input_size=128)


@dataclass(frozen=True)
class Cost:
    """Cost of training one run: `petaflops` in 10^15 multiply-adds, `seconds` on the machine that was timed.

    `problem` says what the run lacks. One that cannot begin, for want of a network, of weights, of a large enough
    input or of its fold, costs nothing, for it fails at once.
    """

    size: int
    complexity: Complexity
    images: int
    petaflops: float
    seconds: float
    problem: str = ""


def costs(plan: Plan, manifest: Manifest) -> dict[str, Cost]:
    """Cost of every run by its name, at its own speed, else at that of its architecture, else of anything.

    Speeds are of runs that have saved themselves or ended. Where there is none it is that of one small network on
    this machine, which is right to a factor of about three. Neither halving nor early stopping is counted on, nor
    what follows the training.
    """
    speeds = _speeds(plan)
    typical = median(speeds.values()) if speeds else _reference_speed()
    alike: dict[str, list[float]] = {}
    for run in plan.runs:
        if run.name in speeds:
            alike.setdefault(run.protocol.architecture, []).append(speeds[run.name])
    found = {}
    for run in plan.runs:
        size = preprocessing(run.protocol).height
        try:
            complexity, images = complexity_of(run.protocol), _images(run, manifest)
            problem = "" if read_position(plan.of(run)) else _lacking(run.protocol, manifest)
        except MskscreenError as error:
            complexity, images, problem = Complexity(0, 0.0), 0, f"will fail: {error}"
        work = _TRAINING * complexity.gflops * images
        speed = speeds.get(run.name) or median(alike.get(run.protocol.architecture, [typical]))
        found[run.name] = Cost(size, complexity, images, work / 1e6, work / speed, problem)
    return found


def trained(folder: Path) -> Mapping[str, Any] | None:
    """What training said of the cost of a finished run: `seconds`, `images`, `images_per_second`, `parameters`."""
    try:
        return dict(json.loads((folder / "done.json").read_text(encoding="utf-8"))["cost"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def complexity_of(protocol: Protocol) -> Complexity:
    """Parameters and multiply-adds of the network of a protocol at its input size."""
    return _complexity(protocol.architecture, preprocessing(protocol).height)


@lru_cache(maxsize=256)
def _complexity(architecture: str, size: int) -> Complexity:
    return measure(architecture, (size, size))


def _lacking(protocol: Protocol, manifest: Manifest) -> str:
    """What may keep a run from beginning. Raises ProtocolError where its weights surely do."""
    heritage(protocol, manifest)
    if protocol.init != "imagenet" or imagenet_at_hand(protocol.architecture):
        return ""
    return (
        f"will fail where the hub is out of reach: timm's cache lacks the ImageNet weights of "
        f"{protocol.architecture}; fetch them, or name a file of them in init"
    )


def _images(run: Run, manifest: Manifest) -> int:
    """Images shown in the whole run."""
    return len(training_rows(manifest, run.protocol.fold)) * run.protocol.epochs


def _speeds(plan: Plan) -> dict[str, float]:
    """10^9 multiply-adds a second of the runs that have ended or saved themselves, by name."""
    found = {}
    for run in plan.runs:
        images, seconds = _taken(plan.of(run))
        if images and seconds > 0:
            found[run.name] = _TRAINING * complexity_of(run.protocol).gflops * images / seconds
    return found


def _taken(folder: Path) -> tuple[int, float]:
    """Images that a run has been shown, and seconds that this took."""
    if cost := trained(folder):
        return cost.get("images", 0), cost.get("seconds", 0.0)
    position = read_position(folder)
    return (position.images, position.seconds) if position else (0, 0.0)


def _reference_speed(batch: int = 8, times: int = 3) -> float:
    """10^9 multiply-adds a second of training steps of a small network in float32 on this machine."""
    network = build_network(_REFERENCE.architecture).train()
    images = torch.rand(batch, 1, _REFERENCE.input_size, _REFERENCE.input_size)
    spans: list[float] = []
    for _ in range(times):
        begin = time.perf_counter()
        pred1, pred2 = network.read_out(network.features(images))[:2]
        (pred1.sum() + pred2.sum()).backward()  # type: ignore[no-untyped-call]
        spans.append(time.perf_counter() - begin)
    return _TRAINING * complexity_of(_REFERENCE).gflops * batch / min(spans)
