"""What each axis changed, and whether the best cell is better than the rest: paired, with intervals.

Two things make a difference uncertain, and each has its interval and its p-value: that other patients might have
come (the same resamples of patients for every run), and that other cells might have been tried (Student's t over
matched pairs). Holm's correction is over all effects of a report, one family for each of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from mskscreen.evaluation.cases import Cases
from mskscreen.evaluation.compare import bootstrap_p, delong_test, holm, mcnemar, same_cases
from mskscreen.evaluation.estimates import Estimate, estimate
from mskscreen.evaluation.intervals import LEVEL, RESAMPLES, Draws, Interval, Part, draw
from mskscreen.evaluation.metrics import Statistic, joint_statistic, ranking_statistic, threshold_statistic
from mskscreen.search.results import Cell, Findings, Result
from mskscreen.search.space import REPEATS, Run

FIGURES = ("abnormality_auroc", "joint_auroc")


@dataclass(frozen=True)
class Effect:
    """Mean difference in `figure` between two levels of an axis, all else (and seed and fold) being the same.

    `keys` are those of the protocol in which the levels differ; `pairs` is the number of matched cells; `cells`
    the interval over them, None for fewer than two; `low` and `high` are the least and the largest difference of a
    pair. `patients_p` and `cells_p` are p-values after Holm's correction, None where they are undefined.
    """

    axis: str
    level: str
    against: str
    figure: str
    keys: tuple[str, ...]
    pairs: int
    difference: Estimate
    cells: Interval | None
    low: float
    high: float
    patients_p: float | None
    cells_p: float | None


@dataclass(frozen=True)
class Rival:
    """The best cell minus another one, each by its best run: differences and the p-values of paired tests."""

    cell: str
    auroc: Estimate
    accuracy: Estimate
    delong: float | None
    delong_holm: float | None
    mcnemar: float
    mcnemar_holm: float | None


def resample(findings: Findings, *, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """The figures of every run on the same resamples of patients.

    Raises DataError where the runs scored different studies.
    """
    cases = _aligned(findings.results)
    parts = {
        result.run.name: Part(np.arange(len(cases[result.run.name])), _statistic(result, cases[result.run.name]))
        for result in findings.results
    }
    return draw(parts, next(iter(cases.values())).patient, resamples=resamples, seed=seed)


def _aligned(results: Sequence[Result]) -> dict[str, Cases]:
    return same_cases({result.run.name: result.cases for result in results})


def _statistic(result: Result, cases: Cases) -> Statistic:
    """The figures of `FIGURES` and the accuracy that a run has, as functions of case weights."""
    tasks = result.run.protocol.tasks
    known = np.flatnonzero(cases.joint >= 0)
    ranking = calling = joint = None
    if tasks != "joint":
        ranking = ranking_statistic(cases.labels, cases.p, average=False)
        calling = threshold_statistic(cases.labels, cases.p >= cases.table.threshold)
    if tasks != "abnormality" and len(known):
        joint = joint_statistic(cases.joint[known], cases.p_joint[known], least=1)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        if ranking and calling:
            found["abnormality_auroc"] = ranking(weights)["auroc"]
            found["abnormality_accuracy"] = calling(weights)["accuracy"]
        if joint:
            found["joint_auroc"] = joint(weights[:, known])["auroc_macro"]
        return found

    return statistic


def effects(findings: Findings, draws: Draws) -> list[Effect]:
    """The effect of each level of each axis against the first one, in the space, that has a finished run."""
    tried = (
        _effect(findings.results, draws, axis, level, levels[0], figure)
        for axis, levels in findings.levels.items()
        for level in levels[1:]
        for figure in FIGURES
    )
    found = [effect for effect in tried if effect is not None]
    corrected = zip(holm([e.patients_p for e in found]), holm([e.cells_p for e in found]), strict=True)
    return [
        replace(effect, patients_p=patients, cells_p=cells)
        for effect, (patients, cells) in zip(found, corrected, strict=True)
    ]


def _effect(
    results: Sequence[Result], draws: Draws, axis: str, level: str, against: str, figure: str
) -> Effect | None:
    """Pairs of runs that differ in this axis alone, averaged over the repeats of a cell and then over cells.

    Its p-values are not corrected.
    """
    mates: dict[tuple, dict[str, Run]] = {}
    for result in results:
        run = result.run
        if figure in draws.estimate[run.name]:
            rest = tuple((k, v) for k, v in run.levels.items() if k not in (axis, *REPEATS))
            mates.setdefault((rest, run.protocol.seed, run.protocol.fold), {})[run.levels[axis]] = run
    by_cell: dict[tuple, list[tuple[Run, Run]]] = {}
    for (rest, *_), runs in mates.items():
        if level in runs and against in runs:
            by_cell.setdefault(rest, []).append((runs[level], runs[against]))
    if not by_cell:
        return None

    def differences(values: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
        """Of each matched cell: (cells, ...)."""
        return np.stack(
            [
                np.mean([values[one.name][figure] - values[other.name][figure] for one, other in pairs], axis=0)
                for pairs in by_cell.values()
            ]
        )

    per_cell = differences(draws.estimate)
    mean = float(per_cell.mean())
    replicates = differences(draws.replicates).mean(axis=0) if draws.replicates else None
    return Effect(
        axis,
        level,
        against,
        figure,
        _changed([pair for pairs in by_cell.values() for pair in pairs]),
        len(by_cell),
        estimate(mean, replicates, differences(draws.jackknife).mean(axis=0) if draws.jackknife else None),
        over_cells(per_cell),
        float(per_cell.min()),
        float(per_cell.max()),
        bootstrap_p(mean, replicates) if replicates is not None else None,
        cells_p(per_cell),
    )


def _changed(pairs: Sequence[tuple[Run, Run]]) -> tuple[str, ...]:
    """Keys of the protocol in which the runs of a pair differ."""
    protocols = [(asdict(one.protocol), asdict(other.protocol)) for one, other in pairs]
    return tuple(key for key in protocols[0][0] if any(one[key] != other[key] for one, other in protocols))


def over_cells(differences: np.ndarray, level: float = LEVEL) -> Interval | None:
    """Student's t interval of the mean of `differences` (n,), taken as a sample of cells; None below two."""
    if len(differences) < 2:
        return None
    half = float(student.ppf((1 + level) / 2, len(differences) - 1)) * differences.std(ddof=1)
    half = float(half / math.sqrt(len(differences)))
    return Interval(float(differences.mean()) - half, float(differences.mean()) + half)


def cells_p(differences: np.ndarray) -> float | None:
    """Two-sided p-value of Student's t that the mean of `differences` (n,) is zero; None below two."""
    if len(differences) < 2:
        return None
    return float(ttest_1samp(differences, 0.0).pvalue) if differences.std() > 0 else float(differences[0] == 0)


def rivals(findings: Findings, draws: Draws) -> tuple[Cell | None, list[Rival]]:
    """The best cell by the development fold and, tested on the evaluation set, what it is ahead of every other.

    Holm's correction is over the rivals, one family for each test.
    """
    ranked = findings.ranked()
    if not ranked:
        return None, []
    best, rest = ranked[0], ranked[1:]
    aligned = _aligned([cell.best for cell in ranked])
    mine = aligned[best.best.run.name]
    tests = [_tests(mine, aligned[cell.best.run.name]) for cell in rest]
    corrected = [holm([test[k] for test in tests]) for k in (0, 1)]
    return best, [
        Rival(
            cell.name,
            _difference(draws, best.best, cell.best, "abnormality_auroc"),
            _difference(draws, best.best, cell.best, "abnormality_accuracy"),
            *(tests[k][0], corrected[0][k]),
            *(tests[k][1], corrected[1][k]),
        )
        for k, cell in enumerate(rest)
    ]


def _tests(best: Cases, other: Cases) -> tuple[float | None, float]:
    right = [(cases.p >= cases.table.threshold) == cases.labels for cases in (best, other)]
    return delong_test(best.labels, best.p, other.p), mcnemar(*right)


def _difference(draws: Draws, best: Result, other: Result, figure: str) -> Estimate:
    def minus(values: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray | None:
        return values[best.run.name][figure] - values[other.run.name][figure] if values else None

    value = minus(draws.estimate)
    assert value is not None  # noqa: S101 - every run has an estimate
    return estimate(float(value), minus(draws.replicates), minus(draws.jackknife))
