"""The sections of the report that are mostly charts."""

from __future__ import annotations

import numpy as np

from mskscreen.evaluation.assess import LOSSES, Assessment, Reliability
from mskscreen.evaluation.calibration import ReliabilityBin
from mskscreen.evaluation.estimates import Estimate
from mskscreen.evaluation.metrics import ABNORMALITY
from mskscreen.evaluation.report import charts
from mskscreen.evaluation.report.charts import Axes, ForestRow, Series
from mskscreen.evaluation.report.markup import tag
from mskscreen.evaluation.report.tables import cell, metric_titles, sentence, table

# Bins with fewer studies jump about.
_MIN_BIN = 10


def curves(a: Assessment) -> list[object]:
    """ROC and precision-recall with pointwise bands."""
    if not a.curves:
        return [tag("p", sentence(a.cases.table.no_scores))]
    overall = a.study.overall
    marks = [
        (f"{name}: {p.threshold:.3f}", 1 - p.metrics["specificity"].value, p.metrics["sensitivity"].value)
        for name, p in a.study.points.items()
        if p.metrics["specificity"].value is not None and p.metrics["sensitivity"].value is not None
    ]
    roc, pr = a.curves["roc"], a.curves["pr"]
    area, precision = (overall.abnormality[name] for name in ("auroc", "auprc"))
    level = np.full(2, overall.abnormal / max(overall.cases, 1))
    return [
        tag(
            "div",
            charts.line_chart(
                "ROC curve",
                Axes("1 - specificity", "sensitivity", diagonal="chance"),
                [Series(f"AUROC {area}", roc.x, roc.y, charts.BLUE, roc.low, roc.high)],
                marks,
            ),
            charts.line_chart(
                "Precision and recall",
                Axes("recall (sensitivity)", "precision (PPV)"),
                [
                    Series(f"AUPRC {precision}", pr.x, pr.y, charts.BLUE, pr.low, pr.high),
                    Series("prevalence", np.array([0.0, 1.0]), level, charts.GREY),
                ],
            ),
            class_="charts",
        )
    ]


def calibration(a: Assessment) -> list[object]:
    """Reliability as predicted and after each calibration fitted on development studies."""
    dev = a.development
    if not a.reliability:
        said = sentence(a.cases.table.no_scores)
        if dev and dev.temperatures:
            said += (
                f" Joint types are at the temperature {dev.temperatures[1]:.3f}, fitted on development studies."
            )
        return [tag("p", said)]
    colours = (charts.BLUE, charts.VERMILLION, charts.GREEN)
    series = [
        Series(
            r.name,
            np.array([part.mean for part in _drawn(r)]),
            np.array([part.observed for part in _drawn(r)]),
            colour,
            markers=True,
        )
        for r, colour in zip(a.reliability, colours, strict=False)
    ]
    axes = Axes("mean predicted probability", "share abnormal", diagonal="ideal")
    counts = [
        (name, np.histogram(a.cases.p[rows], bins=15, range=(0, 1))[0], colour)
        for name, rows, colour in (
            ("abnormal", a.cases.labels, charts.VERMILLION),
            ("normal", ~a.cases.labels, charts.BLUE),
        )
    ]
    rows = [
        [r.name, *(cell(r.metrics[name]) for name in LOSSES), "yes" if r.name == a.calibration else ""]
        for r in a.reliability
    ]
    said = "Temperature and isotonic map were fitted on the development studies." if dev else ""
    if dev and dev.temperatures:
        said += f" Temperatures: abnormality {dev.temperatures[0]:.3f}, joint {dev.temperatures[1]:.3f}."
    return [
        tag(
            "div",
            charts.line_chart("Reliability", axes, series),
            charts.histogram("Scores", axes.x_label, counts),
            class_="charts",
        ),
        table(("Calibration", *metric_titles(LOSSES), "Used in this report"), rows),
        tag("p", f"{said} Bins of fewer than {_MIN_BIN} studies are not drawn.", class_="note"),
    ]


def _drawn(diagram: Reliability) -> list[ReliabilityBin]:
    return [part for part in diagram.bins if part.cases >= _MIN_BIN]


def forest(a: Assessment) -> list[object]:
    """AUROC and kappa of every joint."""
    if a.cases.table.silent:
        return [tag("p", sentence(a.cases.table.no_scores))]
    plots = []
    for metric, chance in (("auroc", 0.5), ("kappa", 0.0)):
        groups = [(group.name, group.abnormality.get(metric)) for group in a.study.groups["joint"]]
        groups += [("average", a.study.average[metric]), ("all", a.study.overall.abnormality[metric])]
        rows = [_forest_row(name, estimate) for name, estimate in groups]
        lows = [row.low for row in rows if row.low is not None]
        start = min(float(np.floor(10 * min(lows, default=0.5)) / 10), 0.9)
        title = f"{ABNORMALITY[metric].title} by joint"
        plots.append(charts.forest(title, rows, (start, 1.0), chance if chance >= start else None))
    note = tag("p", "Dashed: chance.", class_="note")
    return [tag("div", *plots, class_="charts"), note]


def _forest_row(name: str, estimate: Estimate | None) -> ForestRow:
    if estimate is None or estimate.value is None:
        return ForestRow(name, None, None, None, "too few" if estimate is None else "undefined")
    low, high = estimate.interval or (None, None)
    text = f"{estimate.value:.2f}" + (f" ({low:.2f} to {high:.2f})" if low is not None else "")
    return ForestRow(name, estimate.value, low, high, text)
