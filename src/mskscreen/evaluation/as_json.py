"""The figures for machines: strict JSON, in which what is not a number is null."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mskscreen.evaluation.assess import Assessment, worst_errors
from mskscreen.evaluation.intervals import Interval

_LISTED = 20


def to_json(assessment: Assessment) -> str:
    """The assessment for machines: every figure with its intervals or the reason why it is null."""
    value = {
        "flow": [step._asdict() for step in assessment.joined.flow],
        "notes": list(assessment.joined.notes),
        "study": assessment.study,
        "image": assessment.image,
        "calibration": {"chosen": assessment.calibration, "reliability": assessment.reliability},
        "training": assessment.training,
        "development": assessment.development,
        "called_at": assessment.at,
        "operating_points_reason": assessment.points_reason,
        "curves": assessment.curves,
        "conformal": assessment.conformal,
        "errors": {what: _errors(assessment, rows) for what, rows in worst_errors(assessment).items()},
        "robustness": assessment.robustness,
        "agreement": assessment.agreement,
        "provenance": assessment.provenance,
    }
    return dumps(value)


def dumps(value: Any) -> str:
    """Anything that `plain` knows, as text."""
    return json.dumps(plain(value), indent=1, allow_nan=False)


def _errors(a: Assessment, rows: np.ndarray) -> dict[str, Any]:
    worst = [{"study": str(a.cases.keys[i]), "p_abnormal": a.cases.p[i]} for i in rows[:_LISTED]]
    return {"studies": len(rows), "worst": worst}


def plain(value: Any) -> Any:
    """Dataclasses, arrays and NaN as what JSON knows; an infinite limit is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Interval):
        return {"low": value.low, "high": value.high}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
