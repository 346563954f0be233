"""What the runs of a search found: their figures on the evaluation set, gathered by cell.

Whatever is chosen, the best run of a cell or the best cell, is chosen by the development fold, and only then is
the evaluation set looked at.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError, short
from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.labels import Labels, read_labels
from mskscreen.evaluation.metrics import TOO_FEW, joint_statistic, nanmean, ranking_statistic, threshold_statistic
from mskscreen.evaluation.table import read_table
from mskscreen.networks.complexity import Complexity
from mskscreen.search.cost import complexity_of, trained
from mskscreen.search.halving import score_name
from mskscreen.search.plan import DEVELOPMENT, EVALUATION, Plan, State, ending
from mskscreen.search.space import REPEATS, Run

# Name of a figure -> what its column is called.
MAIN = {
    "joint_auroc": "Joint AUROC",
    "joint_accuracy": "Joint accuracy",
    "abnormality_auroc": "Abnormality AUROC",
    "abnormality_accuracy": "Abnormality accuracy",
}


@dataclass(frozen=True)
class Result:
    """A finished run: its score on the development fold, and its cases and figures on the evaluation set.

    `figures` holds those of `MAIN`, each also as `NAME_JOINT` and, averaged over the joint types, as `NAME_mean`;
    one that is not defined, or whose task was not learned, is left out. `seconds` is the time of training and
    `precision` that which it computed in, empty where it is not known.
    """

    run: Run
    score: float
    cases: Cases
    figures: Mapping[str, float]
    complexity: Complexity
    seconds: float
    precision: str = ""


@dataclass(frozen=True)
class Cell:
    """The finished runs of one cell, out of the `planned` ones, which differ in seed and fold alone."""

    results: tuple[Result, ...]
    planned: int

    @property
    def complete(self) -> bool:
        """Whether all its runs have finished: a mean over those that survived is not one over all."""
        return len(self.results) == self.planned

    @property
    def name(self) -> str:
        """Name of the cell."""
        return self.results[0].run.cell

    @property
    def task(self) -> str:
        """The figure of the development fold by which its runs are judged."""
        return score_name(self.results[0].run)

    @property
    def score(self) -> float:
        """Mean development score, by which cells of one task are ranked."""
        return statistics.fmean(result.score for result in self.results)

    @property
    def best(self) -> Result:
        """The run with the best development score, the one that would be used; of several folds on the first."""
        fold = min(result.run.protocol.fold for result in self.results)
        return max((r for r in self.results if r.run.protocol.fold == fold), key=lambda result: result.score)

    def spread(self, figure: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation over the runs; the latter is None for one, all None without values."""
        values = [r.figures[figure] for r in self.results if figure in r.figures]
        if not values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Findings:
    """All finished cells, complete ones first and the best development score first, and how the other runs ended.

    `runs` are all of the search in the order of its space. `on` says which images the figures are of: where there
    is no evaluation set they are those of the development fold, by which the weights were chosen, and too good.
    """

    cells: tuple[Cell, ...]
    others: tuple[tuple[Run, str, str], ...]
    on: str
    runs: tuple[Run, ...]

    @property
    def results(self) -> list[Result]:
        """The finished runs of all cells."""
        return [result for cell in self.cells for result in cell.results]

    @property
    def levels(self) -> dict[str, list[str]]:
        """The levels of each axis that have a finished run, in the order of the space, whoever is ahead."""
        finished = {(axis, level) for result in self.results for axis, level in result.run.levels.items()}
        found: dict[str, dict[str, None]] = {}
        for run in self.runs:
            for axis, level in run.levels.items():
                if axis not in REPEATS and (axis, level) in finished:
                    found.setdefault(axis, {})[level] = None
        return {axis: list(levels) for axis, levels in found.items()}

    def ranked(self, task: str = "abnormality_auroc") -> list[Cell]:
        """The cells that learned a task, best first."""
        return [cell for cell in self.cells if cell.task == task]


def gather(plan: Plan) -> Findings:
    """Read the tables of every finished run.

    Raises DataError where none has finished, and where finished runs share no set of studies.
    """
    done, others = [], []
    for run in plan.runs:
        end = ending(plan.of(run))
        if end and end.state is State.DONE:
            done.append(run)
        else:
            others.append((run, str(end.state) if end else str(State.WAITING), end.reason if end else ""))
    if not done:
        raise DataError(f"{plan.folder}: no run has finished; see: mskscreen search status {plan.folder}")
    held_out = len(plan.held_out()) > 0
    if not held_out:
        require_one_fold(done, "without an evaluation set runs are compared")
    labels = read_labels(plan.data, label_column=plan.labels)
    table = EVALUATION if held_out else DEVELOPMENT
    return Findings(
        cells=ranked_cells([_result(plan, run, table, labels) for run in done], plan.runs),
        others=tuple(others),
        on="evaluation set" if held_out else "development fold",
        runs=plan.runs,
    )


def ranked_cells(results: Sequence[Result], runs: Sequence[Run]) -> tuple[Cell, ...]:
    """The cells of finished runs by task, the complete ones first, those with the best development score first.

    `runs` are all that are planned.
    """
    planned = Counter(run.key for run in runs)
    by_cell: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        by_cell.setdefault(result.run.key, []).append(result)
    cells = [Cell(tuple(found), planned[key]) for key, found in by_cell.items()]
    return tuple(sorted(cells, key=lambda cell: (cell.task, not cell.complete, -cell.score)))


def require_one_fold(runs: Sequence[Run], what: str) -> None:
    """Raise DataError where runs have different development folds; `what` is done by one of them."""
    folds = sorted({run.protocol.fold for run in runs})
    if len(folds) > 1:
        raise DataError(
            f"{what} by one development fold, but these have the folds {', '.join(map(str, folds))}; search one"
        )


def development_cases(plan: Plan, runs: Sequence[Run]) -> dict[str, Cases]:
    """Studies of the development fold as each run scored them, by the name of the run."""
    labels = read_labels(plan.data, label_column=plan.labels)
    return {run.name: join(read_table(plan.of(run) / DEVELOPMENT), labels).cases() for run in runs}


def _result(plan: Plan, run: Run, table: str, labels: Labels) -> Result:
    folder = plan.of(run)
    cases = join(read_table(folder / table), labels).cases()
    cost = trained(folder) or {}
    return Result(
        run=run,
        score=_score(plan, run, labels),
        cases=cases,
        figures=figures(cases, run.protocol.tasks),
        complexity=complexity_of(run.protocol),
        seconds=float(cost.get("seconds", math.nan)),
        precision=cost.get("precision", ""),
    )


def _score(plan: Plan, run: Run, labels: Labels) -> float:
    """Score on the development fold by the `labels` that all runs are judged by, whichever this one learned."""
    name = score_name(run)
    if run.protocol.labels == plan.labels or run.protocol.tasks == "joint":
        path = plan.of(run) / "done.json"
        try:
            return float(json.loads(path.read_text(encoding="utf-8"))["metrics"][name])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: is not the end of a run ({short(error)}); train it again") from error
    found = figures(join(read_table(plan.of(run) / DEVELOPMENT), labels).cases(), run.protocol.tasks)
    if name not in found:
        raise DataError(
            f"{plan.data}: the runs learned different label columns, and '{plan.labels}', by which they are "
            f"compared, lacks a class on the development fold; search one column"
        )
    return found[name]


def figures(cases: Cases, tasks: str = "both") -> dict[str, float]:
    """Figures of the tasks on studies: see `Result`.

    A joint type with fewer than 20 studies has none of its own; the joint AUROC is the mean over all that occur,
    on the same studies for every run.
    """
    every = np.ones((1, len(cases)))
    found: dict[str, float] = {}
    groups = {name: rows for k, name in enumerate(JOINT_LABELS) if len(rows := np.flatnonzero(cases.joint == k))}
    groups = {name: rows for name, rows in groups.items() if len(rows) >= TOO_FEW}
    if tasks != "joint":
        found |= _abnormality(cases, np.arange(len(cases)), "")
        for name, rows in groups.items():
            found |= _abnormality(cases, rows, f"_{name}")
    known = np.flatnonzero(cases.joint >= 0)
    if tasks != "abnormality" and len(known):
        truth, p = cases.joint[known], cases.p_joint[known]
        values = {
            name: float(value[0])
            for name, value in joint_statistic(truth, p, least=1)(every[:, known]).items()
            if value.ndim == 1
        }
        found |= {"joint_auroc": values["auroc_macro"], "joint_accuracy": values["accuracy"]}
        for name in groups:
            mine = truth == JOINT_LABELS.index(name)
            found[f"joint_auroc_{name}"] = values[f"auroc_{name}"]
            found[f"joint_accuracy_{name}"] = float((p[mine].argmax(axis=1) == truth[mine]).mean())
    for figure in MAIN:
        parts = np.array([[found.get(f"{figure}_{name}", math.nan) for name in groups]])
        if groups:
            found[f"{figure}_mean"] = float(nanmean(parts, axis=1)[0])
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _abnormality(cases: Cases, rows: np.ndarray, suffix: str) -> dict[str, float]:
    labels, p, every = cases.labels[rows], cases.p[rows], np.ones((1, len(rows)))
    return {
        f"abnormality_auroc{suffix}": float(ranking_statistic(labels, p, average=False)(every)["auroc"][0]),
        f"abnormality_accuracy{suffix}": float(
            threshold_statistic(labels, p >= cases.table.threshold)(every)["accuracy"][0]
        ),
    }
