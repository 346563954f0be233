"""`mskscreen evaluate`: every figure of a predictions table, in the terminal, as JSON and as one HTML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.cli.cases import join_labels, operating_rules, read_any
from mskscreen.cli.common import Format
from mskscreen.storage import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mskscreen.evaluation.agreement import Agreement
    from mskscreen.evaluation.assess import Assessment
    from mskscreen.evaluation.cases import Cases, Joined
    from mskscreen.evaluation.estimates import Estimate
    from mskscreen.evaluation.labels import Labels
    from mskscreen.evaluation.table import Table

_COLUMNS = {
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "sensitivity": "sens.",
    "specificity": "spec.",
    "kappa": "kappa",
}


def evaluate(
    context: typer.Context,
    predictions: Annotated[Path, typer.Argument(help="A predictions table, or a MURA submission.", exists=True)],
    labels: common.Labels = None,
    label_column: common.LabelColumn = "label",
    train: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of the training: its studies are refused, its patients counted; its evaluation sets do "
            "not count.",
            exists=True,
        ),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(
            help="Predictions of other studies, to choose operating points and calibration.", exists=True
        ),
    ] = None,
    dev_labels: Annotated[
        Path | None, typer.Option(help="Truth of --dev, if not in --labels.", exists=True)
    ] = None,
    dev_other_set: Annotated[
        bool, typer.Option("--dev-other-set", help="--dev is of another data set: equal names mean nothing.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The model, for its operating points and provenance.")] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="Operating point to call at, from --dev, else --model; else the table's own threshold, or "
            "'balanced' after a --calibration."
        ),
    ] = None,
    calibration: Annotated[
        Literal["as-is", "temperature", "isotonic"], typer.Option(help="Calibrate first, fitted on --dev.")
    ] = "as-is",
    sensitivity: common.Sensitivity = 0.95,
    specificity: common.Specificity = 0.95,
    miss_cost: common.MissCost = None,
    prevalence: Annotated[
        float | None, typer.Option(help="Project PPV and NPV to this share of abnormal.")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Column of the truth for subgroups; repeat for more.")
    ] = None,
    readers: Annotated[
        Path | None,
        typer.Option(
            help="CSV of readers' calls, for agreement: study,reader,call, or study and one column a reader.",
            exists=True,
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Readers, with commas, whose majority is the reference (as for MURA).")
    ] = None,
    robustness: Annotated[
        Path | None, typer.Option(help="JSON of tables predicted again, from mskscreen robustness.", exists=True)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the report to this HTML file.", callback=common.to_write)
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images: their pictures go into the report.", exists=True)
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder of overlays from predict --maps, for the report.", exists=True)
    ] = None,
    codalab: Annotated[
        Path | None,
        typer.Option(
            help="Write the calls of the table in the format of MURA's contest.", callback=common.to_write
        ),
    ] = None,
    resamples: common.Resamples = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    form: common.FormatOption = Format.TABLE,
) -> None:
    """Judge predictions against the truth: per joint, in subgroups, with intervals, in a report."""
    if not readers:
        common.refuse_idle(context, "without --readers", "reference")
    if not dev:
        chosen = ("dev_labels", "dev_other_set", "sensitivity", "specificity", "miss_cost")
        common.refuse_idle(context, "without --dev", *chosen)
    if not dev and not model:
        common.refuse_idle(context, "without --dev or --model", "prevalence")
    if not report:
        common.refuse_idle(context, "without --report", "images", "maps")
    if codalab:
        common.refuse_idle(context, "with --codalab, which writes the calls of the table", "at", "calibration")
    from mskscreen.evaluation.agreement import agree, read_readings
    from mskscreen.evaluation.as_json import dumps, to_json
    from mskscreen.evaluation.labels import paths_tell

    table = read_any(predictions)
    how: dict[str, Any] = {"resamples": resamples, "seed": seed}
    readings = read_readings(readers) if readers else None
    names = list(dict.fromkeys(name.strip() for name in reference.split(","))) if reference else []
    without_truth = (codalab or readers) and labels is None and report is None and not paths_tell(table)
    if without_truth:
        common.refuse_idle(context, "without a truth", "at", "calibration")
    if codalab:
        _write_codalab(table, codalab)
    if without_truth:
        if readings:
            found = agree(_unjudged(table), readings, reference=names, **how)
            if form is Format.TABLE:
                _show_agreement(found)
            else:
                print(dumps({"agreement": found}))
        return
    joined = join_labels(table, labels, label_column)

    from mskscreen.evaluation.assess import assess

    assessment = assess(
        joined,
        training=_training(train, label_column),
        development=join_labels(read_any(dev), dev_labels or labels, label_column) if dev else None,
        other_set=dev_other_set,
        contract=_contract(model),
        calibration=calibration,
        rules=operating_rules(sensitivity, specificity, miss_cost),
        at=at,
        by=by or (),
        prevalence=prevalence,
        robustness=_disturbed(robustness, labels, label_column),
        **how,
    )
    if readings:
        threshold = assessment.study.threshold
        found = agree(assessment.cases, readings, reference=names, threshold=threshold, **how)
        assessment = replace(assessment, agreement=found)
        if form is Format.TABLE:
            _show_agreement(found)
    if form is Format.JSON:
        print(to_json(assessment))
    else:
        _show(assessment)
    if report:
        from mskscreen.evaluation.report import Pictures, write_report

        write_report(report, assessment, Pictures(images, maps))
        common.err.print(f"{report}: written; {NOT_FOR_DIAGNOSIS}")


def _show(a: Assessment) -> None:
    from mskscreen.evaluation.summary import partial_averages

    study, silent = a.study, a.cases.table.silent
    rows: list[dict[str, Any]] = []

    def add(
        joint: str, n: object, abnormal: object, found: Mapping[str, Estimate], own: str | Text, why: str | None
    ) -> None:
        shown = {title: _cell(found.get(name), why) for name, title in _COLUMNS.items()}
        row = {"joint": joint, "n": n, "abnormal": abnormal}
        rows.append({**row, **({} if silent else shown), "joint AUROC": own})

    for group in study.groups["joint"]:
        own = _cell(study.joint.get(f"auroc_{group.name}"), group.reason)
        add(group.name, group.cases, group.abnormal, group.abnormality, own, group.reason)
    if study.averaged:
        macro = _cell(study.joint.get("auroc_macro"))
        add(f"average of {len(study.averaged)}", "", "", study.average, macro, None)
    add("all", study.overall.cases, study.overall.abnormal, study.overall.abnormality, "", None)
    what = "Joint type by study" if silent else f"Abnormality by study, called at {study.threshold:.3f}"
    common.show(rows, Format.TABLE, title=f"{what}; 95 % intervals")
    if silent:
        common.err.print(f"abnormality: {a.cases.table.no_scores}")
    for note in partial_averages(study, tuple(_COLUMNS)):
        common.err.print(note)
    accuracy = study.joint.get("accuracy")
    alone = f" ({accuracy.reason})" if accuracy and accuracy.reason else ""
    common.err.print(f"joint type: {f'accuracy {accuracy}{alone}' if accuracy else study.joint_reason}")
    for name, point in study.points.items():
        found = ", ".join(f"{key} {point.metrics[key]}" for key in ("sensitivity", "specificity", "ppv", "npv"))
        common.err.print(f"at '{name}' ({point.threshold:.3f}): {found}")
        if point.projected:
            found = ", ".join(f"{key} {estimate}" for key, estimate in point.projected.items())
            common.err.print(f"  at a prevalence of {study.settings['prevalence']:.1%}: {found}")
    for step in a.joined.flow:
        if step.what.startswith(("left out", "labelled")) and (step.images or step.studies):
            images = "" if step.images is None else f"{step.images} images, "
            common.err.print(f"{step.what}: {images}{step.studies} studies")
    for what, part in (("training", a.training), ("development", a.development)):
        if part and part.shared_patients:
            common.err.print(f"warning: {part.shared_patients} patients are in {what} and evaluation")
    common.err.print(f"{NOT_FOR_DIAGNOSIS.capitalize()}.")


def _cell(estimate: Estimate | None, reason: str | None = None) -> str | Text:
    """The value, and below it the interval without leading zeros, so that a row fits a terminal."""
    if estimate is None or estimate.value is None:
        return (reason or "-").split(":")[0]
    interval = estimate.interval
    low, high = (f"{limit:.3f}".replace("0.", ".", 1) for limit in interval) if interval else ("", "")
    return Text(f"{estimate.value:.3f}" + (f"\n{low}-{high}" if interval else ""))


def _training(manifest: Path | None, column: str) -> Labels | None:
    if manifest is None:
        return None
    from mskscreen.evaluation.labels import read_labels

    with common.needs("data"):
        return read_labels(manifest, label_column=column)


def _contract(model: str | None) -> Any:
    if model is None:
        return None
    from mskscreen.inference.catalogue import model_path, read_contract

    return read_contract(model_path(model))


def _disturbed(index: Path | None, labels: Path | None, column: str) -> dict[str, Joined]:
    if index is None:
        return {}
    from mskscreen.evaluation.robustness import read_index

    return {name: join_labels(read_any(path), labels, column) for name, path in read_index(index).items()}


def _write_codalab(table: Table, path: Path) -> None:
    from mskscreen.evaluation.codalab import submission

    lines = submission(table)
    write_text(path, lines)
    common.err.print(f"{path}: {lines.count(chr(10))} studies")


def _unjudged(table: Table) -> Cases:
    from mskscreen.evaluation.cases import join
    from mskscreen.evaluation.labels import unlabelled

    return join(table, unlabelled(table)).cases()


def _show_agreement(found: list[Agreement]) -> None:
    rows = [
        {
            "rater": a.one,
            "against": a.other,
            "joint": a.joint,
            "studies": a.studies,
            "kappa": a.kappa.value,
            "low": a.kappa.interval.low if a.kappa.interval else None,
            "high": a.kappa.interval.high if a.kappa.interval else None,
            "note": a.kappa.reason or "",
        }
        for a in found
    ]
    common.show(rows, Format.TABLE, title="Cohen's kappa by study; 95 % intervals")
