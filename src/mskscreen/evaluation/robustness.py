"""How the figures change when the same images are predicted again with a disturbance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation import intervals
from mskscreen.evaluation.calibration import weighted_sum
from mskscreen.evaluation.cases import Cases
from mskscreen.evaluation.compare import same_cases
from mskscreen.evaluation.estimates import Estimate, estimate
from mskscreen.evaluation.intervals import Part, draw
from mskscreen.evaluation.metrics import Statistic, ranking_statistic, threshold_statistic
from mskscreen.evaluation.table import NO_JOINTS

UNDISTURBED = "undisturbed"
_PARTS = {"auroc": "ranking", "flipped": "flips", "joint_flipped": "flips"}
METRICS = ("auroc", "sensitivity", "specificity", "kappa")


@dataclass(frozen=True)
class Robustness:
    """One disturbance: metrics under it, and their paired change against the undisturbed images.

    `flipped` is the share of studies whose call changes, `joint_flipped` that of those whose joint type changes.
    The undisturbed images themselves have no change.
    """

    name: str
    studies: int
    metrics: Mapping[str, Estimate]
    change: Mapping[str, Estimate] = field(default_factory=dict)
    flipped: Estimate | None = None
    joint_flipped: Estimate | None = None


def robustness_of(
    base: Cases,
    disturbed: Mapping[str, Cases],
    threshold: float,
    *,
    resamples: int = intervals.RESAMPLES,
    seed: int = 0,
) -> list[Robustness]:
    """Judge the disturbed cases at one threshold, on the same resamples of patients as the undisturbed ones.

    The disturbed cases may be some of `base`; the undisturbed ones, which come first, are then the same. Raises
    DataError that lists the studies where a table holds other ones.
    """
    if not disturbed:
        return []
    wanted = set(next(iter(disturbed.values())).keys)
    base = base.select(np.flatnonzero([key in wanted for key in base.keys]))
    aligned = same_cases({UNDISTURBED: base, **disturbed})
    reference = next(iter(aligned.values()))
    every = np.arange(len(reference))
    parts: dict[str, Part] = {}
    for name, cases in aligned.items():
        if not base.table.silent:
            parts[f"{name} ranking"] = Part(every, ranking_statistic(cases.labels, cases.p, average=False))
            parts[f"{name} calls"] = Part(every, threshold_statistic(cases.labels, cases.p >= threshold))
        parts[f"{name} flips"] = Part(every, _share_statistic(_flips(reference, cases, threshold)))
    draws = draw(parts, reference.patient, resamples=resamples, seed=seed)

    def values(kind: Mapping[str, Mapping[str, np.ndarray]], name: str, metric: str) -> np.ndarray | None:
        part = f"{name} {_PARTS.get(metric, 'calls')}"
        return kind[part].get(metric) if part in kind else None

    def change(kind: Mapping[str, Mapping[str, np.ndarray]], name: str, metric: str) -> np.ndarray | None:
        now, before = values(kind, name, metric), values(kind, UNDISTURBED, metric)
        return None if now is None or before is None else now - before

    kinds = (draws.estimate, draws.replicates, draws.jackknife)
    why = base.table.no_scores or "a class is missing"

    def found(name: str, metric: str) -> Estimate:
        reason = NO_JOINTS if metric == "joint_flipped" else why
        return _estimate(reason, *(values(kind, name, metric) for kind in kinds))

    rows = [Robustness(UNDISTURBED, len(reference), {m: found(UNDISTURBED, m) for m in METRICS})]
    return rows + [
        Robustness(
            name,
            len(reference),
            {m: found(name, m) for m in METRICS},
            {m: _estimate(why, *(change(kind, name, m) for kind in kinds)) for m in METRICS},
            found(name, "flipped"),
            found(name, "joint_flipped"),
        )
        for name in disturbed
    ]


def _estimate(
    why: str, value: np.ndarray | None, replicates: np.ndarray | None, jackknife: np.ndarray | None
) -> Estimate:
    return estimate(np.nan if value is None else float(value), replicates, jackknife, why)


def _flips(reference: Cases, disturbed: Cases, at: float) -> dict[str, np.ndarray]:
    found = {}
    if np.isfinite(reference.p_joint).all() and np.isfinite(disturbed.p_joint).all():
        found["joint_flipped"] = reference.p_joint.argmax(axis=1) != disturbed.p_joint.argmax(axis=1)
    if not reference.table.silent:
        found["flipped"] = (reference.p >= at) != (disturbed.p >= at)
    return found


def _share_statistic(marks: Mapping[str, np.ndarray]) -> Statistic:
    """Share of the cases that are marked, for each of `marks` (n,)."""

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=1)
        return {name: weighted_sum(weights, mark.astype(np.float64)) / total for name, mark in marks.items()}

    return statistic


def read_index(path: Path) -> dict[str, Path]:
    """Tables by disturbance from a JSON file `{"name": "table.parquet", ...}`; paths are relative to the file.

    Raises DataError.
    """
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): path.parent / str(table) for name, table in index.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a JSON object of names and predictions tables ({error})") from error
