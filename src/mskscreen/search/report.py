"""The report of a search: leaderboard, Pareto front, effects and tests as Markdown, CSV and one HTML file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.evaluation.intervals import RESAMPLES
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.style import CSS
from mskscreen.evaluation.report.tables import table
from mskscreen.search.effects import effects, resample, rivals
from mskscreen.search.latency import Latency, key
from mskscreen.search.pareto import Point, pareto_chart
from mskscreen.search.plan import Plan
from mskscreen.search.results import MAIN, Findings
from mskscreen.search.space import REPEATS
from mskscreen.search.tables import Section, by_joint, effect_table, leaderboard, rival_table, unfinished
from mskscreen.storage import write_text

RUNS, CELLS, MARKDOWN, PAGE, CHART = "runs.csv", "leaderboard.csv", "report.md", "report.html", "pareto.svg"


def write_report(
    plan: Plan,
    findings: Findings,
    latencies: dict[str, Latency],
    out: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Section]:
    """Write report.md, report.html, leaderboard.csv, runs.csv and pareto.svg into `out`; returns the tables.

    Without latencies there is no pareto.svg, and that of an earlier report does not stay.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections = _sections(findings, latencies, resamples, seed)
    points = _points(findings, latencies)
    drawing, figure = pareto_chart(points) if points else (None, None)
    about = _about(plan, findings, latencies)
    if drawing:
        write_text(out / CHART, drawing + "\n")
    else:
        (out / CHART).unlink(missing_ok=True)
    write_text(out / CELLS, _csv(sections[0].header, sections[0].rows))
    write_text(out / RUNS, _runs(plan, findings))
    write_text(out / MARKDOWN, _markdown(about, sections, chart=bool(points)))
    write_text(out / PAGE, _html(about, sections, figure))
    return sections


def _sections(findings: Findings, latencies: dict[str, Latency], resamples: int, seed: int) -> list[Section]:
    draws = resample(findings, resamples=resamples, seed=seed)
    found = [leaderboard(findings, latencies)]
    best, others = rivals(findings, draws)
    axes = effects(findings, draws)
    if axes:
        found.append(effect_table(axes, findings))
    if best and others:
        found.append(rival_table(best, others, findings.on))
    # Without a joint type of enough studies there is nothing between the name of a cell and its average.
    found += [s for figure in MAIN if (s := by_joint(findings, figure)).rows and len(s.header) > 3]
    left = unfinished(findings)
    return [*found, left] if left else found


def _points(findings: Findings, latencies: dict[str, Latency]) -> list[Point]:
    points = []
    for number, cell in enumerate(findings.cells, 1):
        latency, auroc = latencies.get(key(cell.best.run.protocol)), cell.spread("abnormality_auroc")
        if latency and auroc:
            points.append(Point(number, latency.median, auroc[0]))
    return points


def _about(plan: Plan, findings: Findings, latencies: dict[str, Latency]) -> list[str]:
    """Sentences that stand before every table."""
    cases = findings.results[0].cases
    complete = sum(cell.complete for cell in findings.cells)
    said = [
        f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
        f"{complete} of {len(plan.space.cells)} cells are finished ({len(findings.results)} of "
        f"{len(plan.runs)} runs). Figures are of {len(cases)} studies of {len(cases.patients)} patients of the "
        f"{findings.on}, {int(cases.labels.sum())} of them abnormal; data {plan.digest[:12]}.",
    ]
    if findings.on != "evaluation set":
        said.append(
            "There is no evaluation set: the figures are of the development fold, which chose the weights, and "
            "are too good."
        )
    if latencies:
        first = next(iter(latencies.values()))
        said.append(f"Latency: {first.engine}, {first.machine}.")
    return said


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue()


def _runs(plan: Plan, findings: Findings) -> str:
    """Every finished run with all its figures, for whoever computes on."""
    axes = list(dict.fromkeys(axis for run in plan.runs for axis in run.levels if axis not in REPEATS))
    names = sorted({name for result in findings.results for name in result.figures})
    header = ("run", "cell", *axes, *REPEATS, "development", "training_seconds", "precision")
    rows = [
        (
            result.run.name,
            result.run.cell,
            *(result.run.levels.get(axis, "") for axis in axes),
            *(getattr(result.run.protocol, key) for key in REPEATS),
            f"{result.score:.6f}",
            f"{result.seconds:.1f}",
            result.precision,
            result.complexity.parameters,
            f"{result.complexity.gflops:.4f}",
            *(f"{result.figures[name]:.6f}" if name in result.figures else "" for name in names),
        )
        for result in findings.results
    ]
    return _csv((*header, "parameters", "gflops", *names), rows)


def _markdown(about: Sequence[str], sections: Sequence[Section], *, chart: bool) -> str:
    parts = ["# Systematic search", *about]
    for number, section in enumerate(sections):
        parts.append(f"## {section.title}")
        parts.append(_markdown_table(section))
        parts.append(section.note)
        if number == 0 and chart:
            parts += ["## Pareto front", f"![Abnormality AUROC against latency]({CHART})"]
            parts.append(
                "Numbers are those of the leaderboard; no other cell is both faster and better than a filled one."
            )
    return "\n\n".join(parts) + "\n"


def _markdown_table(section: Section) -> str:
    rule = [":--" if k in section.words else "--:" for k in range(len(section.header))]
    cells = [section.header, rule, *section.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells)


def _html(about: Sequence[str], sections: Sequence[Section], chart: Markup | None) -> str:
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        tag("title", "Systematic search"),
        tag("style", Markup(CSS)),
    )
    parts = []
    for number, section in enumerate(sections):
        drawn = tag("div", table(section.header, section.rows, text=section.words), class_="wide")
        parts.append(tag("section", tag("h2", section.title), drawn, tag("p", section.note, class_="note")))
        if number == 0 and chart:
            parts.append(tag("section", tag("h2", "Pareto front"), chart))
    body = tag("body", tag("h1", "Systematic search"), *(tag("p", text) for text in about), *parts)
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
