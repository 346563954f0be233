"""All figures of one predictions table: overall, per joint and their average, and in any subgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation import intervals
from mskscreen.evaluation.cases import VIEW_COUNT, Cases
from mskscreen.evaluation.estimates import Estimate, estimate, estimate_of_gaps, estimates
from mskscreen.evaluation.intervals import Draws, Interval, Part, draw
from mskscreen.evaluation.metrics import (
    ABNORMALITY,
    JOINT,
    TOO_FEW,
    Statistic,
    abnormality_statistic,
    confusion,
    joint_statistic,
    nanmean,
    present,
    present_joints,
    threshold_statistic,
)
from mskscreen.evaluation.operating import projected
from mskscreen.evaluation.table import NO_JOINTS

# A column with more values than this is a name, not a group.
_MAX_GROUPS = 60


@dataclass(frozen=True)
class Group:
    """Some of the cases. `abnormality` is empty, and `reason` says why, where there are fewer than 20.

    Where the table is silent on abnormality, it has the reason in place of every value, and `confusion` is empty.
    """

    name: str
    cases: int
    abnormal: int
    patients: int
    abnormality: Mapping[str, Estimate] = field(default_factory=dict)
    confusion: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class PointResult:
    """An operating point as judged on these cases; PPV and NPV are also given at a stated prevalence."""

    threshold: float
    confusion: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    projected: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """Every figure at one level. `joint` is empty and `joint_reason` says why where no joint type is known.

    `average` is the unweighted mean over the joint types with enough cases, which `averaged` names;
    `joint_confusion` (7, 7) counts truth by row and call by column.
    """

    level: str
    threshold: float
    overall: Group
    joint: Mapping[str, Estimate]
    joint_reason: str | None
    joint_confusion: np.ndarray
    groups: Mapping[str, Sequence[Group]]
    average: Mapping[str, Estimate]
    averaged: Sequence[str]
    points: Mapping[str, PointResult]
    settings: Mapping[str, Any]


def summarise(
    cases: Cases,
    *,
    threshold: float | None = None,
    by: Sequence[str] = (),
    points: Mapping[str, float] | None = None,
    prevalence: float | None = None,
    resamples: int = intervals.RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Evaluate `cases` overall, per joint, per number of views and per value of each column in `by`.

    `threshold` is that of the table unless given; `points` are thresholds, by name, to be judged besides. All
    figures come from the same resamples of patients. Raises DataError for an unknown column, and where neither
    abnormality nor a joint type can be judged.
    """
    threshold = cases.table.threshold if threshold is None else threshold
    columns = {name: _groups_of(cases, name) for name in ("joint", VIEW_COUNT, *by)}
    enough = {
        f"{column}={value}": rows
        for column, values in columns.items()
        for value, rows in values.items()
        if len(rows) >= TOO_FEW
    }
    parts = {} if cases.table.silent else {"all": np.arange(len(cases)), **enough}
    scores = cases.table.no_scores is None
    statistics = {
        name: Part(rows, abnormality_statistic(cases.labels[rows], cases.p[rows], threshold, scores=scores))
        for name, rows in parts.items()
    }
    known = np.flatnonzero((cases.joint >= 0) & np.isfinite(cases.p_joint).all(axis=1))
    if len(known):
        statistics["joint"] = Part(known, joint_statistic(cases.joint[known], cases.p_joint[known]))
    for name, value in (points or {}).items():
        statistics[f"point {name}"] = Part(parts["all"], _point_statistic(cases, value, prevalence))
    if not statistics:
        why = cases.table.no_scores
        raise DataError(
            f"{cases.table.name}: {why}, and the truth names no joint type; name one in a column joint"
        )
    draws = draw(statistics, cases.patient, resamples=resamples, seed=seed)
    joints = [joint for joint in JOINT_LABELS if f"joint={joint}" in enough]
    return Summary(
        level=cases.level,
        threshold=threshold,
        overall=_group(cases, "all", "all", np.arange(len(cases)), threshold, draws),
        joint=estimates(JOINT, draws, "joint", present_joints(cases.joint[known]), len(known))
        if len(known)
        else {},
        joint_reason=None if len(known) else _no_joint(cases),
        joint_confusion=_joint_confusion(cases, known),
        groups={
            column: [_group(cases, f"{column}={v}", v, rows, threshold, draws) for v, rows in values.items()]
            for column, values in columns.items()
        },
        average=_average(draws, [f"joint={joint}" for joint in joints], cases.table.no_scores),
        averaged=joints,
        points={
            name: _point(cases, f"point {name}", value, draws, prevalence)
            for name, value in (points or {}).items()
        },
        settings={"resamples": resamples, "seed": seed, "prevalence": prevalence, "confidence": intervals.LEVEL},
    )


def _no_joint(cases: Cases) -> str:
    if (cases.joint < 0).all():
        return "no joint type is known of these cases"
    return NO_JOINTS


def partial_averages(summary: Summary, metrics: Sequence[str] = tuple(ABNORMALITY)) -> list[str]:
    """What to say of the averages of `metrics` that are of fewer joint types than `averaged`, one undefined."""
    groups = [group for group in summary.groups["joint"] if group.name in summary.averaged]
    found = []
    for name in metrics:
        lacking = [group.name for group in groups if group.abnormality[name].value is None]
        if lacking and summary.average[name].value is not None:
            of = f"{len(groups) - len(lacking)} joints: it is undefined for {', '.join(lacking)}"
            found.append(f"the average of {ABNORMALITY[name].title} is of {of}")
    return found


def _groups_of(cases: Cases, column: str) -> dict[str, np.ndarray]:
    if column == "joint":
        return {name: rows for k, name in enumerate(JOINT_LABELS) if len(rows := np.flatnonzero(cases.joint == k))}
    if column not in cases.columns:
        known = ", ".join(sorted({"joint", *cases.columns}))
        raise DataError(f"the labels have no column '{column}' to group by; they have {known}")
    values = sorted(
        set(cases.columns[column]), key=lambda text: (len(text), text) if text.isdigit() else (99, text)
    )
    if len(values) > _MAX_GROUPS:
        raise DataError(f"column '{column}' has {len(values)} values, more than {_MAX_GROUPS}; group it first")
    return {value: np.flatnonzero(cases.columns[column] == value) for value in values}


def _group(cases: Cases, part: str, name: str, rows: np.ndarray, threshold: float, draws: Draws) -> Group:
    labels, p = cases.labels[rows], cases.p[rows]
    group = Group(name, len(rows), int(labels.sum()), len(np.unique(cases.patient[rows])))
    no_scores, calls = cases.table.no_scores, p >= threshold
    if len(rows) < TOO_FEW and part != "all":
        return replace(group, reason=f"too few: fewer than {TOO_FEW}")
    if cases.table.silent:
        return replace(group, abnormality=_without(no_scores), reason=no_scores)
    found = estimates(ABNORMALITY, draws, part, present(labels, calls), len(rows), no_scores)
    cells = confusion(labels, calls)
    extra = {name: _wilson(cells, *m.proportion) for name, m in ABNORMALITY.items() if m.proportion}
    if no_scores is None:
        extra["auroc"] = {"delong": intervals.delong_interval(labels, p)}
    return replace(group, abnormality=_with(found, extra) if group.patients > 1 else found, confusion=cells)


def _without(reason: str | None) -> dict[str, Estimate]:
    return dict.fromkeys(ABNORMALITY, Estimate(None, reason=reason))


def _wilson(
    cells: Mapping[str, int], numerator: Sequence[str], denominator: Sequence[str]
) -> dict[str, Interval | None]:
    trials = sum(cells[cell] for cell in denominator)
    return {"wilson": intervals.wilson(sum(cells[cell] for cell in numerator), trials)}


def _with(
    found: Mapping[str, Estimate], extra: Mapping[str, Mapping[str, Interval | None]]
) -> dict[str, Estimate]:
    """The estimates with further intervals where both are defined."""
    added = dict(found)
    for name, more in extra.items():
        known = {method: interval for method, interval in more.items() if interval is not None}
        if known and found[name].value is not None:
            added[name] = replace(found[name], intervals={**found[name].intervals, **known}, reason=None)
    return added


def _average(draws: Draws, joints: Sequence[str], no_scores: str | None) -> dict[str, Estimate]:
    """Unweighted mean over joints of every metric, with the intervals of that mean."""
    if not joints:
        return _without("no joint type with enough cases")
    if not all(joint in draws.estimate for joint in joints):
        return _without(no_scores)

    def mean(values: Mapping[str, Mapping[str, Any]], name: str) -> np.ndarray | None:
        if not all(joint in values for joint in joints):
            return None
        return nanmean(np.stack([np.atleast_1d(values[joint][name]) for joint in joints]), axis=0)

    found = {}
    for name, metric in ABNORMALITY.items():
        if metric.scores and no_scores:
            found[name] = Estimate(None, reason=no_scores)
            continue
        if metric.biased:
            # The mean of sums over bins is one sum over the bins of all joints.
            gaps = [draws.estimate[joint][f"{name}_gaps"] / len(joints) for joint in joints]
            again = [draws.replicates[joint][f"{name}_gaps"] / len(joints) for joint in joints if draws.replicates]
            found[name] = estimate_of_gaps(np.concatenate(gaps), np.concatenate(again, axis=1) if again else None)
            continue
        value = mean(draws.estimate, name)
        assert value is not None  # noqa: S101 - every part has an estimate
        found[name] = estimate(float(value[0]), mean(draws.replicates, name), mean(draws.jackknife, name))
    return found


def _joint_confusion(cases: Cases, rows: np.ndarray) -> np.ndarray:
    size = len(JOINT_LABELS)
    cells = cases.joint[rows] * size + cases.p_joint[rows].argmax(axis=1)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _point_statistic(cases: Cases, threshold: float, prevalence: float | None) -> Statistic:
    at_threshold = threshold_statistic(cases.labels, cases.p >= threshold)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = at_threshold(weights)
        if prevalence is not None:
            values = projected(found["sensitivity"], found["specificity"], prevalence)
            found |= {f"projected {name}": value for name, value in values.items()}
        return found

    return statistic


def _point(cases: Cases, part: str, threshold: float, draws: Draws, prevalence: float | None) -> PointResult:
    calls = cases.p >= threshold
    cells = confusion(cases.labels, calls)
    table = {name: metric for name, metric in ABNORMALITY.items() if not metric.scores}
    occurs = present(cases.labels, calls)
    found = estimates(table, draws, part, occurs, len(cases))
    extra = {name: _wilson(cells, *metric.proportion) for name, metric in table.items() if metric.proportion}
    shown = {} if prevalence is None else {f"projected {name}": table[name] for name in ("ppv", "npv")}
    at_prevalence = estimates(shown, draws, part, occurs, len(cases))
    return PointResult(
        threshold,
        cells,
        _with(found, extra) if len(cases.patients) > 1 else found,
        {name.removeprefix("projected "): value for name, value in at_prevalence.items()},
    )
