"""Everything that a report says of one predictions table, computed once; text, JSON and HTML are made from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import mskscreen
from mskscreen.contract import ModelContract
from mskscreen.errors import DataError
from mskscreen.evaluation import intervals
from mskscreen.evaluation.calibration import Isotonic, ReliabilityBin, fit_isotonic, reliability
from mskscreen.evaluation.cases import Cases, Joined
from mskscreen.evaluation.contract_update import chosen_on, fit_calibration, recalibrated
from mskscreen.evaluation.curves import GRID, band, curve_statistic
from mskscreen.evaluation.intervals import Interval, Part, draw, wilson
from mskscreen.evaluation.metrics import loss_statistic
from mskscreen.evaluation.operating import RULES, OperatingPoint, Rule, choose_all, fingerprint, require_apart
from mskscreen.evaluation.robustness import Robustness, robustness_of
from mskscreen.evaluation.selective import ConformalResult, fit_conformal, judge_conformal, risk_statistic
from mskscreen.evaluation.summary import Summary, summarise

CalibrationChoice = Literal["as-is", "temperature", "isotonic"]
COVERAGE = np.linspace(0.05, 1, 96)
_CURVE_RESAMPLES = 500


@dataclass(frozen=True)
class Curve:
    """A curve (k,) over `x` with its pointwise 95 % band, NaN where undefined."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Reliability:
    """Reliability of one way of calibrating: its bins, log loss and expected calibration error."""

    name: str
    bins: Sequence[ReliabilityBin]
    log_loss: float
    ece: float


@dataclass(frozen=True)
class Development:
    """What was taken from the development studies; `shared_patients` should be 0."""

    table: str
    studies: int
    patients: int
    shared_patients: int
    points: Mapping[str, OperatingPoint]
    temperatures: tuple[float, float] | None


@dataclass(frozen=True)
class ConformalSection:
    """The conformal "undetermined" at one promised error rate, and how often its calls were not wrong."""

    alpha: float
    normal: float
    abnormal: float
    result: ConformalResult
    covered: Mapping[str, Interval | None]


@dataclass(frozen=True)
class Assessment:
    """All that is known of one table against one truth."""

    joined: Joined
    cases: Cases
    study: Summary
    image: Summary
    curves: Mapping[str, Curve]
    reliability: Sequence[Reliability]
    calibration: CalibrationChoice
    development: Development | None
    points_reason: str | None
    conformal: Sequence[ConformalSection]
    robustness: Sequence[Robustness]
    contract: ModelContract | None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def assess(
    joined: Joined,
    *,
    development: Joined | None = None,
    contract: ModelContract | None = None,
    calibration: CalibrationChoice = "as-is",
    rules: Mapping[str, Rule] = RULES,
    at: str | None = None,
    by: Sequence[str] = (),
    prevalence: float | None = None,
    robustness: Mapping[str, Joined] | None = None,
    resamples: int = intervals.RESAMPLES,
    seed: int = 0,
) -> Assessment:
    """Judge a table at both levels, with what `development` studies allow to choose.

    Calls are made at the operating point `at`, or else at the threshold of the table. Raises DataError where
    development and evaluation share a study, or where a choice needs development studies and there are none.
    """
    cases, images = joined.cases("study"), joined.cases("image")
    dev = development.cases("study") if development else None
    shared = require_apart(dev, cases) if dev else 0
    if calibration != "as-is" and dev is None:
        raise DataError(f"calibration '{calibration}' needs development predictions; pass --dev")
    soft = not cases.table.hard
    calibrators = _calibrators(dev, soft)
    diagrams = (
        [_diagram(name, cases.labels, _apply(name, cases, calibrators).p) for name in calibrators] if soft else []
    )
    cases, images = (_apply(calibration, part, calibrators) for part in (cases, images))
    if dev is not None:
        dev = _apply(calibration, dev, calibrators)
    points, reason = _points(dev, contract, cases, rules)
    thresholds = {name: p.threshold if isinstance(p, OperatingPoint) else p for name, p in points.items()}
    if at is not None and at not in thresholds:
        raise DataError(
            f"no operating point '{at}'; known are {', '.join(thresholds) or 'none'} ({reason or 'chosen'})"
        )
    threshold = cases.table.threshold if at is None else thresholds[at]
    common: dict[str, Any] = {"by": by, "resamples": resamples, "seed": seed, "threshold": threshold}
    study = summarise(cases, points=thresholds, prevalence=prevalence, **common)
    return Assessment(
        joined=joined,
        cases=cases,
        study=study,
        image=summarise(images, **common),
        curves=_curves(cases, study.threshold, seed) if soft else {},
        reliability=diagrams,
        calibration=calibration,
        development=_development(dev, shared, points, calibrators) if dev else None,
        points_reason=reason,
        conformal=_conformal(dev, cases) if dev and soft else (),
        robustness=robustness_of(joined, robustness or {}, threshold=threshold, resamples=resamples, seed=seed),
        contract=contract,
        provenance=provenance(joined, development, contract, study),
    )


def _calibrators(dev: Cases | None, soft: bool) -> dict[str, Any]:
    """Ways to calibrate, by name; the raw temperatures need the raw scores of the development studies."""
    found: dict[str, Any] = {"as-is": None}
    if dev is not None and soft:
        if np.isfinite(dev.table.pred1[dev.rows]).all():
            found["temperature"] = fit_calibration(dev)
        found["isotonic"] = fit_isotonic(dev.labels, dev.p)
    return found


def _apply(name: str, cases: Cases, calibrators: Mapping[str, Any]) -> Cases:
    if name not in calibrators:
        raise DataError(f"{cases.table.name}: calibration '{name}' needs the raw scores pred1; run predict again")
    how = calibrators[name]
    if how is None:
        return cases
    return dataclasses.replace(cases, p=how(cases.p)) if isinstance(how, Isotonic) else recalibrated(cases, how)


def _diagram(name: str, labels: np.ndarray, p: np.ndarray) -> Reliability:
    loss = loss_statistic(labels, p)(np.ones((1, len(p))))
    return Reliability(name, reliability(labels, p), float(loss["log_loss"][0]), float(loss["ece"][0]))


def _points(
    dev: Cases | None, contract: ModelContract | None, cases: Cases, rules: Mapping[str, Rule]
) -> tuple[Mapping[str, OperatingPoint | float], str | None]:
    """Operating points to judge, and the reason where there are none."""
    if cases.table.hard:
        return {}, "the table holds calls, not probabilities"
    if dev is not None:
        return choose_all(dev, rules), None
    if contract is None:
        return {}, "none chosen: pass development predictions (--dev) or the model (--model)"
    if chosen_on(contract, cases):
        return {}, "refused: the model's operating points were chosen on exactly these studies"
    return contract.operating_points, None


def _development(
    dev: Cases, shared: int, points: Mapping[str, OperatingPoint | float], calibrators: Mapping[str, Any]
) -> Development:
    fitted = calibrators.get("temperature")
    return Development(
        table=dev.table.name,
        studies=len(dev),
        patients=len(dev.patients),
        shared_patients=shared,
        points={name: point for name, point in points.items() if isinstance(point, OperatingPoint)},
        temperatures=(fitted.abnormality_temperature, fitted.joint_temperature) if fitted else None,
    )


def _curves(cases: Cases, threshold: float, seed: int) -> dict[str, Curve]:
    every = np.arange(len(cases))
    parts = {
        "curve": Part(every, curve_statistic(cases.labels, cases.p)),
        "selective": Part(every, risk_statistic(cases.labels, cases.p, threshold, COVERAGE)),
    }
    draws = draw(parts, cases.patient, resamples=_CURVE_RESAMPLES, seed=seed, bca=False)

    def curve(part: str, name: str, x: np.ndarray) -> Curve:
        if part in draws.replicates:
            low, high = band(draws.replicates[part][name])
        else:
            low = high = np.full(len(x), np.nan)
        return Curve(x, draws.estimate[part][name], low, high)

    return {
        "roc": curve("curve", "roc", GRID),
        "pr": curve("curve", "pr", GRID),
        "risk": curve("selective", "risk", COVERAGE),
    }


def _conformal(dev: Cases, cases: Cases) -> list[ConformalSection]:
    if not dev.labels.any() or dev.labels.all():
        return []
    sections = []
    for alpha in (0.05, 0.1, 0.2):
        rule = fit_conformal(dev.labels, dev.p, alpha)
        result = judge_conformal(rule, cases.labels, cases.p)
        covered = {name: wilson(result.covered[name], result.cases[name]) for name in result.cases}
        sections.append(ConformalSection(alpha, rule.normal, rule.abnormal, result, covered))
    return sections


def provenance(
    joined: Joined, development: Joined | None, contract: ModelContract | None, summary: Summary
) -> dict[str, Any]:
    """Digests, seeds and versions that tie the figures to what they were made from."""
    tables = {"evaluation": joined} | ({"development": development} if development else {})
    return {
        "model": dict(joined.table.model) or None,
        "contract": contract.digest if contract else joined.table.model.get("contract"),
        "training": dataclasses.asdict(contract.provenance) if contract else None,
        "tables": {
            name: {
                "file": part.table.name,
                "scores_sha256": _scores_digest(part),
                "studies_sha256": fingerprint(part.cases("study")),
                "labels": part.labels.name,
            }
            for name, part in tables.items()
        },
        "settings": dict(summary.settings) | {"threshold": summary.threshold},
        "code_sha256": code_digest(),
        "versions": {
            "mskscreen": mskscreen.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _scores_digest(joined: Joined) -> str:
    """SHA-256 of images and scores, the same for every format and order of the table."""
    order = np.argsort(np.array(joined.image_keys, object), kind="stable")
    digest = hashlib.sha256("\n".join(joined.image_keys[i] for i in order).encode())
    digest.update(joined.table.p_abnormal[order].tobytes())
    digest.update(joined.table.p_joint[order].tobytes())
    return digest.hexdigest()


def code_digest() -> str:
    """SHA-256 of the Python files of the evaluation room: what computed the figures."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def to_json(assessment: Assessment) -> str:
    """The assessment for machines: every figure with its intervals or the reason why it is null."""
    value = {
        "flow": [step._asdict() for step in assessment.joined.flow],
        "notes": list(assessment.joined.notes),
        "study": assessment.study,
        "image": assessment.image,
        "calibration": {"chosen": assessment.calibration, "reliability": assessment.reliability},
        "development": assessment.development,
        "operating_points_reason": assessment.points_reason,
        "curves": assessment.curves,
        "conformal": assessment.conformal,
        "robustness": assessment.robustness,
        "provenance": assessment.provenance,
    }
    return json.dumps(plain(value), indent=1, allow_nan=False)


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
