"""How a predictions table is shown to a person: studies, then images, then what went wrong."""

from __future__ import annotations

import os

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.predictions import FLAG_MIXED_JOINTS, Prediction, Predictions, StudyPrediction

ROWS_SHOWN = 40
ERRORS_SHOWN = 10


def show_predictions(table: Predictions) -> None:
    """Print a table and what it is not on stdout, and the errors and the model on stderr."""
    folder = _common_folder([row.file for row in table])
    found = table.studies
    studies = [
        {"study": _below(row.study, folder), **_result(row), "images": row.images, "errors": row.errors}
        for row in found
    ]
    mixed = [FLAG_MIXED_JOINTS in row.flags for row in found]
    if any(mixed):  # the other flags of a study are those of its images
        studies = [row | {"flags": FLAG_MIXED_JOINTS * flag} for row, flag in zip(studies, mixed, strict=True)]
    images = [{"image": _below(row.file, folder), **_result(row), "flags": ", ".join(row.flags)} for row in table]
    for title, rows in (("Studies", studies), ("Images", images)):
        common.show(rows[:ROWS_SHOWN], common.Format.TABLE, title=title)
        if len(rows) > ROWS_SHOWN:
            common.err.print(f"... and {len(rows) - ROWS_SHOWN} more {title.lower()}: see --output")
    print(f"{NOT_FOR_DIAGNOSIS.capitalize()}.")
    errors = [row.error for row in table if row.error]
    for error in errors[:ERRORS_SHOWN]:
        common.alarm.print(f"error: {error}")
    model = table.model
    called = f"operating point {model['operating_point']}: abnormal from {table.threshold:.2f}"
    if "abnormality" not in model["tasks"]:
        called = "which did not learn abnormality"
    common.err.print(f"model {model['name']} ({model['engine']}, {model['precision']}), {called}.")


def _result(row: Prediction | StudyPrediction) -> dict[str, str]:
    call = "yes" if row.abnormal else "no"
    return {
        "joint": "-" if row.p_joint is None else f"{row.joint} {max(row.p_joint):.2f}",
        "abnormal": "-" if row.p_abnormal is None else f"{call} {row.p_abnormal:.2f}",
    }


def _common_folder(files: list[str]) -> str:
    folders = {os.path.dirname(file) for file in files}  # noqa: PTH120 - a name of a row need not be a path
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def _below(name: str, folder: str) -> str:
    """A name without the folder that it lies in; that of a study need not lie in any."""
    return name.removeprefix(os.path.join(folder, ""))  # noqa: PTH118 - as above
