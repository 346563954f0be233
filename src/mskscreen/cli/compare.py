"""`mskscreen compare`: two or more models on the same studies, with paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.cli.cases import join_labels, read_any
from mskscreen.cli.common import Format


def compare(
    predictions: Annotated[
        list[Path], typer.Argument(help="Predictions tables of the same studies.", exists=True)
    ],
    labels: common.Labels = None,
    label_column: common.LabelColumn = "label",
    resamples: common.Resamples = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples and permutations.")] = 0,
    form: common.FormatOption = Format.TABLE,
) -> None:
    """Compare models on the same studies: differences with intervals, and paired tests with Holm's correction.

    Tables whose studies differ are refused, with the rows where they do.
    """
    from mskscreen.evaluation.as_json import dumps
    from mskscreen.evaluation.compare import compare as compare_cases

    names = _names(predictions)
    models = {
        name: join_labels(read_any(path), labels, label_column).cases()
        for name, path in zip(names, predictions, strict=True)
    }
    result = compare_cases(models, resamples=resamples, seed=seed)
    if form is Format.JSON:
        print(dumps(result))
        return
    shown = ("auroc", "auprc", "accuracy", "sensitivity", "specificity", "kappa", "brier", "ece")
    rows: list[dict[str, Any]] = [
        {"model": name, **{metric: str(found[metric]) for metric in shown}}
        for name, found in result.models.items()
    ]
    common.show(rows, form, title=f"{result.cases} studies of {result.patients} patients; 95 % intervals")
    differences: list[dict[str, Any]] = [
        {"pair": f"{pair.second} - {pair.first}", **{m: str(pair.differences[m]) for m in shown}}
        for pair in result.pairs
    ]
    common.show(differences, form, title="Differences; 95 % intervals")
    tests: list[dict[str, Any]] = [
        {
            "pair": f"{pair.second} - {pair.first}",
            "test": test.name,
            "of": test.metric,
            "p": _p(test.p),
            "p, Holm": _p(test.adjusted),
        }
        for pair in result.pairs
        for test in pair.tests
    ]
    common.show(tests, form, title="Paired tests")
    common.err.print(f"{NOT_FOR_DIAGNOSIS.capitalize()}.")


def _names(paths: list[Path]) -> list[str]:
    """File names without suffix where they differ, else whole paths."""
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise typer.BadParameter(f"'{twice[0]}' is named twice; name the tables of two models")
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
