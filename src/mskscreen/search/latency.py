"""CPU latency of the models of a search: one image at a time on one core, all models in turn in one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mskscreen.inference import Screener
from mskscreen.inference.machine import machine_kind
from mskscreen.search.plan import MODEL, Plan
from mskscreen.search.results import Findings
from mskscreen.storage import write_text
from mskscreen.training.material import preprocessing
from mskscreen.training.protocol import Protocol

FILE = "latency.json"
ROUNDS = 15


@dataclass(frozen=True)
class Latency:
    """Milliseconds an image: the median of the rounds and their quartiles, on which engine and kind of machine."""

    median: float
    low: float
    high: float
    engine: str
    machine: str


def latencies(
    plan: Plan, findings: Findings, *, rounds: int = ROUNDS, measured: Callable[[int], None] = lambda _: None
) -> dict[str, Latency]:
    """Latency of each architecture and input size, by `key`; what was measured before on such a machine stays.

    Decoding is not counted. A busy machine makes the figures larger, all alike since the models take turns.
    """
    known = {key: value for key, value in _read(plan.folder / FILE).items() if value.machine == machine_kind()}
    missing: dict[str, Path] = {}
    for cell in findings.cells:
        path = plan.of(cell.best.run) / MODEL
        if key(cell.best.run.protocol) not in known and path.exists():
            missing.setdefault(key(cell.best.run.protocol), path)
    if missing:
        known |= _measure(missing, rounds, measured)
        write_text(
            plan.folder / FILE, json.dumps({name: asdict(found) for name, found in known.items()}, indent=1)
        )
    return known


def key(protocol: Protocol) -> str:
    """What decides the latency of a model: architecture and input size."""
    return f"{protocol.architecture} {preprocessing(protocol).height}"


def _measure(models: Mapping[str, Path], rounds: int, measured: Callable[[int], None]) -> dict[str, Latency]:
    screeners = {name: Screener.load(path, threads=1) for name, path in models.items()}
    spans: dict[str, list[float]] = {name: [] for name in screeners}
    # The first round pays for what is loaded late.
    for number in range(rounds + 1):
        for name, screener in screeners.items():
            image = np.random.default_rng(number).random((1, 1, *screener.engine.contract.input_size), np.float32)
            begin = time.perf_counter()
            screener.engine.run(image)
            if number:
                spans[name].append(1e3 * (time.perf_counter() - begin))
        measured(1)
    found = {}
    for name, screener in screeners.items():
        low, middle, high = statistics.quantiles(spans[name], n=4) if rounds > 1 else spans[name] * 3
        engine = f"{screener.engine.name} {screener.engine.precision}"
        found[name] = Latency(round(middle, 3), round(low, 3), round(high, 3), engine, machine_kind())
    return found


def _read(path: Path) -> dict[str, Latency]:
    try:
        return {name: Latency(**value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
