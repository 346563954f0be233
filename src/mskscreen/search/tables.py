"""The tables of the report, in words and numbers alone: Markdown, CSV and HTML are made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.evaluation.intervals import Interval
from mskscreen.search.effects import Effect, Rival
from mskscreen.search.latency import Latency, key
from mskscreen.search.results import MAIN, Cell, Findings

_SIGNIFICANT = 0.0001


@dataclass(frozen=True)
class Section:
    """A table with its title and a sentence on how to read it; `words` are the columns that hold text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    words: tuple[int, ...] = (0,)


def leaderboard(findings: Findings, latencies: Mapping[str, Latency]) -> Section:
    """A row for each cell in the form of the published table, best development score first."""
    header = ("#", "Cell", "Runs", "Development AUROC", *MAIN.values())
    header += ("Mparams", "GFLOPs", "Training, h", "Latency, ms")
    rows = tuple(
        (
            str(number),
            cell.name,
            str(cell.planned) if cell.complete else f"{len(cell.results)} of {cell.planned}",
            f"{cell.score:.3f}",
            *(_spread(cell, figure) for figure in MAIN),
            f"{cell.best.complexity.parameters / 1e6:.3f}",
            f"{cell.best.complexity.gflops:.2f}",
            f"{sum(result.seconds for result in cell.results) / 3600:.2f}",
            _latency(cell, latencies),
        )
        for number, cell in enumerate(findings.cells, 1)
    )
    repeated = any(len(cell.results) > 1 for cell in findings.cells)
    spread = (
        "mean +- standard deviation over the runs of a cell (its seeds and folds)"
        if repeated
        else "one run of each cell, so without a spread"
    )
    note = (
        f"Studies of the {findings.on}; {spread}. Cells are ranked by the development fold, which also chose the "
        "weights of each; one that learned the joint alone is ranked by its joint AUROC. A dash stands for a task "
        "that was not learned. GFLOPs are 10^9 multiply-adds; the time of training is that of all runs; latency "
        "is of one image on one core, decoding not counted."
    )
    if not all(cell.complete for cell in findings.cells):
        note += (
            " Cells of which not all runs have finished come behind the others: where runs were stopped for being "
            "behind, the mean of the rest is too good."
        )
    return Section("Leaderboard", header, rows, note, words=(1,))


def by_joint(findings: Findings, figure: str) -> Section:
    """One figure of every cell per joint type, and its average over them."""
    joints = [name for name in JOINT_LABELS if any(c.spread(f"{figure}_{name}") for c in findings.cells)]
    rows = tuple(
        (
            str(number),
            cell.name,
            *(_spread(cell, f"{figure}_{joint}") for joint in joints),
            _spread(cell, f"{figure}_mean"),
        )
        for number, cell in enumerate(findings.cells, 1)
        if cell.spread(figure)
    )
    note = "The average is the unweighted mean over the joint types; one with fewer than 20 studies is left out."
    return Section(f"{MAIN[figure]} by joint", ("#", "Cell", *joints, "average"), rows, note, words=(1,))


def effect_table(effects: Sequence[Effect], findings: Findings) -> Section:
    """What each axis changed."""
    means = ("Axis", "Level", "Against", "Figure", "Pairs", "Difference")
    header = (*means, "95 % over patients", "Holm p", "95 % over cells", "Holm p", "Least to largest")
    rows = tuple(
        (
            effect.axis if effect.keys == (effect.axis,) else f"{effect.axis} ({', '.join(effect.keys)})",
            effect.level,
            effect.against,
            MAIN[effect.figure],
            str(effect.pairs),
            _signed(effect.difference.value),
            _interval(effect.difference.interval),
            _p(effect.patients_p),
            _interval(effect.cells),
            _p(effect.cells_p),
            f"{_signed(effect.low)} to {_signed(effect.high)}",
        )
        for effect in effects
    )
    note = (
        f"Mean difference on the {findings.on} between cells that differ in this axis alone. Over patients: would "
        "other patients show it for these very models (bootstrap)? Over cells: would other cells (Student's t "
        f"over the pairs)? {len(effects)} rows were looked at: the p-values have Holm's correction over them, the "
        "intervals have none. An effect of which one p-value is large or absent is a question for the next "
        "search. Neither knows how much another seed would change where there is one seed."
    )
    if any(effect.keys != (effect.axis,) for effect in effects):
        note += (
            " Where levels differ in other keys of the protocol than the axis, all these keys stand in brackets: "
            "such a row is the effect of all of them together, and of none alone."
        )
    if lost := Counter(state for _, state, _ in findings.others):
        note += (
            f" Only pairs of finished runs count; of {len(findings.runs)} runs "
            f"{', '.join(f'{count} {state}' for state, count in lost.items())} are in none. Where the worse runs "
            "of a level were stopped, its effect is that of the better ones."
        )
    return Section("Effect of each axis", header, rows, note, words=(0, 1, 2, 3))


def rival_table(best: Cell, rivals: Sequence[Rival], on: str) -> Section:
    """The best cell against every other one."""
    header = ("Best minus", "AUROC", "95 %", "DeLong p", "Holm", "Accuracy", "95 %", "McNemar p", "Holm")
    rows = tuple(
        (
            rival.cell,
            _signed(rival.auroc.value),
            _interval(rival.auroc.interval),
            _p(rival.delong),
            _p(rival.delong_holm),
            _signed(rival.accuracy.value),
            _interval(rival.accuracy.interval),
            _p(rival.mcnemar),
            _p(rival.mcnemar_holm),
        )
        for rival in rivals
    )
    note = (
        f"'{best.name}' has the best development score; each cell is represented by its run with the best one, "
        f"and tested on the {on}: paired, with Holm's correction over the rows. The tests take studies as "
        "independent; the intervals resample patients."
    )
    return Section("The best against the rest", header, rows, note)


def unfinished(findings: Findings) -> Section | None:
    """The runs that failed, were stopped, or have not ended."""
    if not findings.others:
        return None
    rows = tuple((run.cell, str(run.protocol.seed), state, reason) for run, state, reason in findings.others)
    note = "These runs are in no other table."
    return Section("Not in the tables", ("Cell", "Seed", "State", "Reason"), rows, note, words=(0, 2, 3))


def _spread(cell: Cell, figure: str) -> str:
    found = cell.spread(figure)
    if found is None:
        return "-"
    mean, deviation = found
    return f"{mean:.3f}" + (f" +- {deviation:.3f}" if deviation is not None else "")


def _latency(cell: Cell, latencies: Mapping[str, Latency]) -> str:
    found = latencies.get(key(cell.best.run.protocol))
    return "-" if found is None else f"{found.median:.1f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:+.3f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:+.3f} to {interval.high:+.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"< {_SIGNIFICANT}" if value < _SIGNIFICANT else f"{value:.4f}"
