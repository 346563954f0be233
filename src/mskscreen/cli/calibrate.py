"""`mskscreen calibrate`: temperatures and operating points from development studies, written into the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mskscreen.cli import common
from mskscreen.cli.cases import join_labels, operating_rules, read_any
from mskscreen.cli.common import Format


def calibrate(
    predictions: Annotated[Path, typer.Argument(help="Predictions of the development studies.", exists=True)],
    model: Annotated[str, typer.Option(help="The model that made them: an ONNX file or a bundled name.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write the calibrated model.", callback=common.to_write)
    ],
    labels: common.Labels = None,
    label_column: common.LabelColumn = "label",
    level: Annotated[Literal["study", "image"], typer.Option(help="What the temperature is fitted on.")] = "study",
    sensitivity: common.Sensitivity = 0.95,
    specificity: common.Specificity = 0.95,
    miss_cost: common.MissCost = None,
    form: common.FormatOption = Format.TABLE,
) -> None:
    """Fit temperatures and choose operating points, on development studies only, and write them into a new file.

    Of a model that learned joint types alone only their temperature is fitted. Evaluate the result on other
    studies: evaluating it on these is refused.
    """
    from mskscreen.evaluation.calibration import TEMPERATURES
    from mskscreen.evaluation.contract_update import (
        calibrated_contract,
        recalibrated,
        require_same_model,
        write_contract,
    )
    from mskscreen.evaluation.metrics import joint_statistic, loss_statistic
    from mskscreen.inference.catalogue import model_path, read_contract

    common.check_model_output(out)
    path = model_path(model)
    contract = read_contract(path)
    joined = join_labels(read_any(predictions), labels, label_column)
    studies = joined.cases("study")
    require_same_model(studies, contract)
    rules = operating_rules(sensitivity, specificity, miss_cost)
    updated, points = calibrated_contract(contract, studies, rules, fit=joined.cases(level))
    write_contract(path, updated, out)
    if faster := [name for name in ("bf16", "int8") if any(f"/{name}" in key for key in contract.approved)]:
        data = "--calibration MANIFEST --gate MANIFEST" if "int8" in faster else "--gate MANIFEST"
        common.err.print(
            "precisions must pass their gate anew, at these thresholds: "
            f"mskscreen export {out} --precision {','.join(faster)} {data}"
        )
    rows: list[dict[str, Any]] = [
        {
            "point": name,
            "rule": str(p.rule),
            "threshold": p.threshold,
            "sensitivity": p.sensitivity,
            "specificity": p.specificity,
        }
        for name, p in points.items()
    ]
    if rows or form is Format.JSON:
        common.show(rows, form, title=f"Chosen on {len(studies)} development studies")
    import numpy as np

    of = f"{'joint type, ' if studies.table.silent else ''}on the development studies"
    for name, cases in (("before", studies), ("after", recalibrated(studies, updated.calibration))):
        if studies.table.silent:
            cases = cases.select(np.flatnonzero(cases.joint >= 0))
            losses = joint_statistic(cases.joint, cases.p_joint)
        else:
            losses = loss_statistic(cases.labels, cases.p)
        loss = losses(np.ones((1, len(cases))))
        common.err.print(f"{name}: log loss {loss['log_loss'][0]:.4f}, ECE {loss['ece'][0]:.4f} ({of})")
    found = updated.calibration
    common.err.print(
        f"temperatures: abnormality {found.abnormality_temperature:.3f}, joint {found.joint_temperature:.3f}"
    )
    lacking = ("lower one, as where the scores make no error", "higher one, as where the scores tell nothing")
    for task in ("abnormality", "joint"):
        temperature = getattr(found, f"{task}_temperature")
        if temperature in TEMPERATURES:
            common.err.print(
                f"warning: the {task} temperature is at the bound of its search, {temperature:g}: these studies "
                f"want a {lacking[TEMPERATURES.index(temperature)]}; check their labels, or take more of them"
            )
    common.err.print(f"{out}: written")
