"""What the runs of a search found: their figures on the evaluation set, gathered by cell.

Whatever is chosen, the best run of a cell or the best cell, is chosen by the development fold, and only then is
the evaluation set looked at.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.labels import Labels, read_labels
from mskscreen.evaluation.metrics import joint_statistic, nanmean, ranking_statistic, threshold_statistic
from mskscreen.evaluation.summary import TOO_FEW
from mskscreen.evaluation.table import read_table
from mskscreen.networks.complexity import Complexity
from mskscreen.search.cost import complexity_of, trained
from mskscreen.search.halving import score_name
from mskscreen.search.plan import DEVELOPMENT, EVALUATION, Plan, State, ending
from mskscreen.search.space import Run

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
    one that is not defined, or whose task was not learned, is left out. `seconds` is the time of training.
    """

    run: Run
    score: float
    cases: Cases
    figures: Mapping[str, float]
    complexity: Complexity
    seconds: float


@dataclass(frozen=True)
class Cell:
    """The finished runs of one cell, which differ in their seed alone."""

    results: tuple[Result, ...]

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
        """The run with the best development score: the one that would be used."""
        return max(self.results, key=lambda result: result.score)

    def spread(self, figure: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation over the seeds; the latter is None for one seed, all None without values."""
        values = [r.figures[figure] for r in self.results if figure in r.figures]
        if not values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Findings:
    """All finished cells, best development score first, and how the other runs ended.

    `on` says which images the figures are of: where there is no evaluation set they are those of the development
    fold, by which the weights were chosen, and too good.
    """

    cells: tuple[Cell, ...]
    others: tuple[tuple[Run, str, str], ...]
    on: str
    seeds: int

    @property
    def results(self) -> list[Result]:
        """The finished runs of all cells."""
        return [result for cell in self.cells for result in cell.results]

    def ranked(self, task: str = "abnormality_auroc") -> list[Cell]:
        """The cells that learned a task, best first."""
        return [cell for cell in self.cells if cell.task == task]


def gather(plan: Plan) -> Findings:
    """Read the tables of every finished run. Raises DataError where none has finished."""
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
    labels = read_labels(plan.data, label_column=plan.labels)
    table = EVALUATION if held_out else DEVELOPMENT
    by_cell: dict[str, list[Result]] = {}
    for run in done:
        by_cell.setdefault(run.cell, []).append(_result(plan, run, table, labels))
    cells = [Cell(tuple(results)) for results in by_cell.values()]
    return Findings(
        cells=tuple(sorted(cells, key=lambda cell: (cell.task, -cell.score))),
        others=tuple(others),
        on="evaluation set" if held_out else "development fold",
        seeds=max(len(cell.results) for cell in cells),
    )


def development_cases(plan: Plan, runs: Sequence[Run]) -> dict[str, Cases]:
    """Studies of the development fold as each run scored them, by the name of the run."""
    labels = read_labels(plan.data, label_column=plan.labels)
    return {run.name: join(read_table(plan.of(run) / DEVELOPMENT), labels).cases() for run in runs}


def _result(plan: Plan, run: Run, table: str, labels: Labels) -> Result:
    folder = plan.of(run)
    cases = join(read_table(folder / table), labels).cases()
    done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    cost = trained(folder) or {}
    return Result(
        run=run,
        score=float(done["metrics"][score_name(run)]),
        cases=cases,
        figures=figures(cases, run.protocol.tasks),
        complexity=complexity_of(run.protocol),
        seconds=float(cost.get("seconds", math.nan)),
    )


def figures(cases: Cases, tasks: str = "both") -> dict[str, float]:
    """Figures of the tasks on studies: see `Result`. A joint type with fewer than 20 studies has none."""
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
            for name, value in joint_statistic(truth, p)(every[:, known]).items()
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
