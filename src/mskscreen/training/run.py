"""One training run: a folder that ends with a model, or goes on where it was stopped.

result = train(Path("folds.parquet"), Protocol.from_toml("paper.toml"), Path("runs/x"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mskscreen.training.protocol import Protocol


@dataclass(frozen=True)
class Progress:
    """Where a run is: told after every step, and after every epoch with the `metrics` of that epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    metrics: Mapping[str, float] | None = None


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    `finished` is False where it was stopped and can go on; `already` says that an earlier call had finished it.
    `metrics` are those of the best epoch on the development fold, `cost` what it took (`seconds`, `images`,
    `images_per_second`, `parameters`), `notes` sentences about the data.
    """

    folder: Path
    finished: bool
    already: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def train(
    data: Path,
    protocol: Protocol,
    out: Path,
    *,
    cache: Path | None = None,
    workers: int = 0,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train on a manifest with folds (or a folder of images, which is indexed and split), into the folder `out`.

    `out` holds protocol.toml, best.safetensors and last.safetensors with their contracts, metrics.csv (a row an
    epoch), development.parquet (predictions of the best weights on the development fold), curves.png, a folder of
    logs, and in the end done.json with `metrics`, `cost`, `protocol` (digest) and `data` (digest). A run that was
    killed goes on where it was; a finished one is returned as it is. `stop` is asked after every step: where it
    says yes the run saves itself and returns unfinished. `cache` is the folder of decoded images.

    Raises ProtocolError and DataError in one sentence.
    """
    raise NotImplementedError
