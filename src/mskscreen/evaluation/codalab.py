"""The submission format of MURA: one line a study, `MURA-v1.1/valid/XR_HAND/patient11185/study1/,1`.

It holds calls and no scores, and has no header.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation.table import Table
from mskscreen.mura_path import mura_path

_LINE = re.compile(r"(?P<study>[^,]*study\d+(?:_(?:positive|negative))?/?),(?P<call>[01])")


def is_submission(path: Path) -> bool:
    """Whether the first line of a file is a line of a submission."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        return _LINE.fullmatch(stream.readline(4096).strip()) is not None


def read_submission(path: Path) -> Table:
    """A submission as a predictions table of one row a study, with calls in place of probabilities.

    Raises DataError that names the line.
    """
    studies, calls, patients = [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise DataError(f"{path}: line {number} is not 'MURA-v1.1/valid/TYPE/PATIENT/STUDY/,0' or ',1'")
        studies.append(found["study"])
        calls.append(float(found["call"]))
        name = mura_path(found["study"])
        patients.append(name.patient if name else None)
    n = len(studies)
    return Table(
        file=studies,
        study=studies,
        patient=patients,
        p_abnormal=np.array(calls),
        # The folder names the joint in this format; it is not a prediction.
        p_joint=np.full((n, len(JOINT_LABELS)), np.nan),
        pred1=np.full((n, 2), np.nan),
        pred2=np.full((n, len(JOINT_LABELS)), np.nan),
        model={"name": path.stem},
        name=path.name,
        hard=True,
    )


def submission(table: Table) -> str:
    """The lines of a submission for the MURA studies of a table, in the order of first appearance.

    A study is called abnormal where the mean probability of its images is at least the table's threshold. It is
    named by its folder from the name of the release on, as the competition's list of images names it.

    Raises DataError where the table is silent on abnormality, or a study is not of a MURA tree or has no scored
    image.
    """
    table.require_abnormality("a submission")
    scores: dict[str, list[float]] = {}
    first_row: dict[str, int] = {}
    for row, (file, p) in enumerate(zip(table.file, table.p_abnormal.tolist(), strict=True), 1):
        found, parts = mura_path(file), file.replace("\\", "/").split("/")
        if found is None or found.joint is None or found.image is None or len(parts) < 5:
            raise DataError(
                f"{table.name}: row {row} is not an image of a MURA tree; predict the release's folder"
            )
        name = "/".join(["MURA-v1.1", *parts[-5:-1], ""])
        scores.setdefault(name, []).append(p)
        first_row.setdefault(name, row)
    lines = []
    for name, values in scores.items():
        known = [value for value in values if math.isfinite(value)]
        if not known:
            raise DataError(f"{table.name}: the study of row {first_row[name]} has no scored image; predict it")
        lines.append(f"{name},{int(math.fsum(known) / len(known) >= table.threshold)}\n")
    return "".join(lines)
