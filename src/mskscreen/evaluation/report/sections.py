"""The sections of the report, each a function of the assessment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS, NOT_FOR_DIAGNOSIS
from mskscreen.evaluation.assess import Assessment
from mskscreen.evaluation.estimates import Estimate
from mskscreen.evaluation.metrics import ABNORMALITY, JOINT
from mskscreen.evaluation.report import charts
from mskscreen.evaluation.report.charts import Axes, Series
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.tables import (
    MAIN,
    cell,
    group_rows,
    matrix,
    metric_titles,
    sentence,
    table,
    two_by_two,
)
from mskscreen.evaluation.summary import partial_averages


def summary(a: Assessment) -> list[object]:
    """Intended use and the headline figures."""
    overall, joint = a.study.overall.abnormality, a.study.joint
    use = a.contract.intended_use if a.contract else a.joined.table.model.get("intended_use", NOT_FOR_DIAGNOSIS)
    tiles = [
        _tile("AUROC, abnormality", overall["auroc"]),
        _tile("Cohen's kappa", overall["kappa"]),
        _tile("Sensitivity", overall["sensitivity"]),
        _tile("Specificity", overall["specificity"]),
        _tile("Joint accuracy", joint.get("accuracy")),
        _tile("ECE", overall["ece"]),
    ]
    return [
        tag("p", f"Intended use: {use.removesuffix('.')}.", class_="banner"),
        tag(
            "p",
            f"{a.study.overall.cases} studies of {a.study.overall.patients} patients, "
            f"{a.study.overall.abnormal} of them abnormal. {_called(a)}"
            "Intervals are of 95 % and, unless said otherwise, from resampling patients.",
        ),
        tag("div", *tiles, class_="tiles"),
    ]


def _called(a: Assessment) -> str:
    if a.cases.table.silent:
        return f"No study is called: {a.cases.table.no_scores}. "
    at = f"the operating point '{a.at}'" if a.at else "the threshold of the table"
    return f"A study is called abnormal at a probability of {a.study.threshold:.3f} or more, {at}. "


def _tile(title: str, estimate: Estimate | None) -> Markup:
    if estimate is None or estimate.value is None:
        why = estimate.reason if estimate else None
        return tag("div", tag("b", "-"), tag("span", title), tag("span", why), class_="tile")
    interval = estimate.interval
    limits = f"{interval.low:.3f} to {interval.high:.3f}" if interval else estimate.reason
    return tag("div", tag("b", f"{estimate.value:.3f}"), tag("span", title), tag("span", limits), class_="tile")


def flow(a: Assessment) -> list[object]:
    """What became of every image, and the proof that patients are disjoint."""
    rows = [[step.what, "-" if step.images is None else step.images, step.studies] for step in a.joined.flow]
    parts: list[object] = [table(("Step", "Images", "Studies"), rows)]
    parts += [tag("p", note) for note in a.joined.notes]
    return [*parts, *_training(a), *_development(a)]


def _training(a: Assessment) -> list[object]:
    made = a.training
    if made is None:
        return [tag("p", "No list of the training studies was given (--train).")]
    counts = _counts(a, made.patients, "training", made.shared_patients)
    return [_verdict(made.shared_patients, f"{counts}; 0 of the {made.studies} training studies are evaluated.")]


def _development(a: Assessment) -> list[object]:
    dev = a.development
    if dev is None:
        said = "No development predictions were given: nothing was chosen or fitted for this report."
        return [tag("p", said)]
    if dev.other_set:
        said = "Declared to be of another data set, where equal names mean nothing: "
        proof = f"{dev.studies} development studies; no image is in both, by the digests of the files."
        return [tag("p", tag("span", said, class_="good"), proof)]
    counts = _counts(a, dev.patients, "development", dev.shared_patients)
    return [_verdict(dev.shared_patients, f"{counts}; 0 of the {dev.studies} development studies are evaluated.")]


def _counts(a: Assessment, patients: int, what: str, shared: int) -> str:
    return f"{patients} {what} patients, {len(a.cases.patients)} evaluation patients, {shared} in both"


def _verdict(shared: int, counts: str) -> Markup:
    said, state = ("NOT disjoint by patient", "bad") if shared else ("Disjoint by patient", "good")
    return tag("p", tag("span", f"{said}: ", class_=state), counts)


def main_table(a: Assessment) -> list[object]:
    """Per joint, the average over joints, and all studies together."""
    joint = a.study.joint
    header = ["Joint", "Studies", "Abnormal", *metric_titles(), "Joint AUROC"]
    rows = [[*row, cell(joint.get(f"auroc_{row[0]}"))] for row in group_rows(a.study.groups["joint"])]
    average = [
        f"Average of {len(a.study.averaged)} joints",
        "",
        "",
        *(cell(a.study.average[m]) for m in MAIN),
        cell(joint.get("auroc_macro")),
    ]
    total = [[*group_rows([a.study.overall])[0], ""]]
    total[0][0] = "All studies"
    summed = [average, *total] if a.study.averaged else total
    parts: list[object] = [table(header, [*rows, *summed], total=len(summed))]
    parts += [tag("p", note, class_="note") for note in partial_averages(a.study)]
    others = [name for name in ABNORMALITY if name not in MAIN]
    both = [("Studies", a.study), ("Images", a.image)]
    parts.append(tag("h3", "Every metric, by study and by image"))
    if not a.cases.table.silent:
        found = [
            [ABNORMALITY[m].title, *(cell(s.overall.abnormality[m]) for _, s in both)] for m in (*MAIN, *others)
        ]
        parts.append(table(("Abnormality", *(name for name, _ in both)), found))
    if joint:
        rows = [[JOINT[m].title, *(cell(s.joint.get(m)) for _, s in both)] for m in JOINT]
        parts.append(table(("Joint type", *(name for name, _ in both)), rows))
    else:
        parts.append(tag("p", f"Joint type: {a.study.joint_reason}."))
    return parts


def confusion(a: Assessment) -> list[object]:
    """Cross tables of both tasks."""
    parts: list[object] = []
    if a.study.overall.confusion:
        parts += [tag("h3", f"Abnormality at {a.study.threshold:.3f}"), two_by_two(a.study.overall.confusion)]
    if a.study.joint:
        parts += [
            tag("h3", "Joint type: truth by row, call by column"),
            matrix(a.study.joint_confusion, JOINT_LABELS),
        ]
    return parts


def points(a: Assessment) -> list[object]:
    """Operating points: where chosen, what they reached there, and what they reach here."""
    if not a.study.points:
        return [tag("p", f"No operating point is judged here: {a.points_reason}.")]
    dev = a.development
    prevalence = a.study.settings["prevalence"]
    header = ["Point", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV"]
    rows = []
    for name, point in a.study.points.items():
        row: list[object] = [name, f"{point.threshold:.4f}"]
        row += [cell(point.metrics[m]) for m in ("sensitivity", "specificity", "ppv", "npv")]
        if prevalence is not None:
            row += [cell(point.projected["ppv"]), cell(point.projected["npv"])]
        rows.append(row)
    if prevalence is not None:
        header += [f"PPV at {prevalence:.1%}", f"NPV at {prevalence:.1%}"]
    parts: list[object] = [table(header, rows)]
    if dev and dev.points:
        chosen = [
            [name, str(p.rule), f"{p.threshold:.4f}", f"{p.sensitivity:.3f}", f"{p.specificity:.3f}"]
            for name, p in dev.points.items()
        ]
        parts.append(tag("h3", f"Where they were chosen: {dev.studies} development studies"))
        parts.append(
            table(("Point", "Rule", "Threshold", "Sensitivity there", "Specificity there"), chosen, text=(1,))
        )
    return parts


def subgroups(a: Assessment) -> list[object]:
    """Every group of every column."""
    parts: list[object] = []
    for column, groups in a.study.groups.items():
        if column == "joint":
            continue
        parts.append(tag("h3", f"By {column}"))
        parts.append(table(("Group", "Studies", "Abnormal", *metric_titles()), group_rows(groups)))
    return parts


def selective(a: Assessment) -> list[object]:
    """Risk against coverage, and the conformal undetermined."""
    if not a.curves:
        return [tag("p", sentence(a.cases.table.no_scores))]
    risk = a.curves["risk"]
    highest = float(np.nanmax([*risk.y, *risk.high[np.isfinite(risk.high)], 0.01]))
    axes = Axes("coverage: share of studies called", "error rate of the calls", y_range=(0, highest * 1.1))
    line = Series("surest studies first", risk.x, risk.y, charts.BLUE, risk.low, risk.high)
    parts: list[object] = [tag("div", charts.line_chart("Risk and coverage", axes, [line]), class_="charts")]
    if not a.conformal:
        parts.append(tag("p", "The conformal rule needs development studies of both classes (--dev)."))
        return parts
    parts.append(tag("h3", "Conformal calls with an undetermined"))
    rows = []
    for section in a.conformal:
        for name, cases in section.result.cases.items():
            left, covered = section.result.undetermined[name], section.result.covered[name]
            interval = section.covered[name]
            share = (
                tag("span", f"{covered / cases:.3f}", tag("small", f"{interval.low:.3f} to {interval.high:.3f}"))
                if interval
                else "-"
            )
            undetermined = f"{left / cases:.1%}" if cases else "-"
            rows.append([f"{1 - section.alpha:.0%}", name, cases, undetermined, share])
    parts.append(
        table(("Promised", "True class", "Studies", "Undetermined", "Not called wrongly"), rows, text=(1,))
    )
    parts.append(tag("p", "An undetermined study is not called and counts as not called wrongly.", class_="note"))
    return parts


def robustness(a: Assessment) -> list[object]:
    """The same images, disturbed and predicted again."""
    if not a.robustness:
        return [tag("p", "No disturbed images were predicted (mskscreen robustness, then --robustness).")]
    header = (
        "Disturbance",
        "AUROC",
        "Change of AUROC",
        "Kappa",
        "Change of kappa",
        "Calls changed",
        "Joints changed",
    )
    rows = [
        [
            r.name,
            cell(r.metrics["auroc"]),
            cell(r.change.get("auroc")),
            cell(r.metrics["kappa"]),
            cell(r.change.get("kappa")),
            cell(r.flipped),
            cell(r.joint_flipped),
        ]
        for r in a.robustness
    ]
    studies, threshold = a.robustness[0].studies, a.study.threshold
    said = (
        f"{studies} of the {len(a.cases)} studies, their images disturbed and predicted again, called at "
        f"{threshold:.3f}. Changes are paired, and the shares are of studies."
    )
    return [tag("p", said), table(header, rows)]


def agreement(a: Assessment) -> list[object]:
    """Cohen's kappa of the model with readers, and of readers with each other."""
    rows = [[k.one, k.other, k.joint, k.studies, cell(k.kappa)] for k in a.agreement]
    header = ("Rater", "Against", "Joint", "Studies", "Cohen's kappa")
    return [table(header, rows, text=(1, 2))]


def provenance(a: Assessment) -> list[object]:
    """Digests, seeds and versions; the figures that a contract quotes belong to the model card."""
    training = a.provenance["training"] or {}
    protocol = {k: v for k, v in training.get("protocol", {}).items() if not isinstance(v, Mapping)}
    kept = {k: v for k, v in training.items() if k != "figures"} | ({"protocol": protocol} if protocol else {})
    shown = {**a.provenance, "training": kept}
    return [tag("dl", *([tag("dt", name), tag("dd", tag("code", item))] for name, item in _flat(shown)))]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(item, Mapping):
            rows += _flat(item, f"{name} / ")
        elif item is not None and item != "":
            rows.append(
                (
                    name,
                    ", ".join(map(str, item))
                    if isinstance(item, Sequence) and not isinstance(item, str)
                    else str(item),
                )
            )
    return rows
