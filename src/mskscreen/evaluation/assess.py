"""Everything that a report says of one predictions table, computed once; text, JSON and HTML are made from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mskscreen.contract import ModelContract
from mskscreen.errors import DataError
from mskscreen.evaluation import intervals
from mskscreen.evaluation.agreement import Agreement
from mskscreen.evaluation.calibration import Isotonic, ReliabilityBin, fit_isotonic, reliability
from mskscreen.evaluation.cases import Cases, Joined
from mskscreen.evaluation.contract_update import (
    fit_calibration,
    recalibrated,
    require_not_chosen_on,
    require_same_model,
)
from mskscreen.evaluation.curves import GRID, band, curve_statistic
from mskscreen.evaluation.estimates import Estimate, estimates
from mskscreen.evaluation.intervals import Interval, Part, draw, wilson
from mskscreen.evaluation.labels import Labels
from mskscreen.evaluation.metrics import ABNORMALITY, loss_statistic
from mskscreen.evaluation.operating import (
    RULES,
    OperatingPoint,
    Rule,
    Training,
    choose_all,
    require_apart,
    require_not_trained_on,
)
from mskscreen.evaluation.provenance import provenance
from mskscreen.evaluation.robustness import Robustness, robustness_of
from mskscreen.evaluation.selective import ConformalResult, fit_conformal, judge_conformal, risk_statistic
from mskscreen.evaluation.summary import Summary, summarise

CalibrationChoice = Literal["as-is", "temperature", "isotonic"]
COVERAGE = np.linspace(0.05, 1, 96)
LOSSES = ("brier", "log_loss", "ece")
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
    """Reliability of one way of calibrating: its bins, and the metrics of `LOSSES` with their intervals."""

    name: str
    bins: Sequence[ReliabilityBin]
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True)
class Development:
    """What was taken from the development studies; `shared_patients` should be 0."""

    table: str
    studies: int
    patients: int
    shared_patients: int
    other_set: bool
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
    """All that is known of one table against one truth; `p_view` is the probability of each row of the table.

    `at` names the operating point of the calls, None where they are made at the threshold of the table.
    """

    joined: Joined
    cases: Cases
    p_view: np.ndarray
    study: Summary
    image: Summary
    curves: Mapping[str, Curve]
    reliability: Sequence[Reliability]
    calibration: CalibrationChoice
    training: Training | None
    development: Development | None
    points_reason: str | None
    at: str | None
    conformal: Sequence[ConformalSection]
    robustness: Sequence[Robustness]
    contract: ModelContract | None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    agreement: Sequence[Agreement] = ()


def assess(
    joined: Joined,
    *,
    training: Labels | None = None,
    development: Joined | None = None,
    other_set: bool = False,
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

    Calls are made at the operating point `at`, or else at the threshold of the table; after a calibration, which
    that threshold does not fit, at the point "balanced" of the development studies. `other_set` declares that
    the development studies are of another data set: see `require_apart`. Raises DataError where evaluation shares
    a study with development or `training`, where `contract` says that it was calibrated on these
    images, or where a choice needs development studies and there are none.
    """
    cases, images = joined.cases("study"), joined.cases("image")
    dev = development.cases("study") if development else None
    shared = require_apart(dev, cases, other_set=other_set) if dev else 0
    _require_one_model(cases, dev, contract)
    if calibration == "isotonic":
        cases.table.require_abnormality("an isotonic calibration")
    if calibration != "as-is" and cases.table.hard:
        raise DataError(
            f"{cases.table.name}: {cases.table.no_scores}, which calibration '{calibration}' needs; "
            "evaluate the table that predict wrote"
        )
    if calibration != "as-is" and dev is None:
        raise DataError(f"calibration '{calibration}' needs development predictions; pass --dev")
    soft = cases.table.no_scores is None
    calibrators = _calibrators(dev, soft, calibration)
    diagrams = (
        _diagrams(cases, {name: _apply(name, cases, calibrators).p for name in calibrators}, resamples, seed)
        if soft
        else []
    )
    cases, images = (_apply(calibration, part, calibrators) for part in (cases, images))
    if dev is not None:
        dev = _apply(calibration, dev, calibrators)
    points, reason = _points(dev, contract, cases.table.no_scores, rules)
    thresholds = {name: p.threshold if isinstance(p, OperatingPoint) else p for name, p in points.items()}
    if at is None and calibration != "as-is" and not cases.table.silent:
        at = "balanced"
    if at is not None and at not in thresholds:
        raise DataError(
            f"no operating point '{at}'; known are {', '.join(thresholds) or 'none'} ({reason or 'chosen'})"
        )
    threshold = cases.table.threshold if at is None else thresholds[at]
    common: dict[str, Any] = {"by": by, "resamples": resamples, "seed": seed, "threshold": threshold}
    study = summarise(cases, points=thresholds, prevalence=prevalence, **common)
    disturbed = {name: _apply(calibration, part.cases(), calibrators) for name, part in (robustness or {}).items()}
    return Assessment(
        joined=joined,
        cases=cases,
        p_view=_by_row(images),
        study=study,
        image=summarise(images, **common),
        curves=_curves(cases, study.threshold, seed) if soft else {},
        reliability=diagrams,
        calibration=calibration,
        training=require_not_trained_on(training, cases) if training else None,
        development=_development(dev, shared, other_set, points, calibrators) if dev else None,
        points_reason=reason,
        at=at,
        conformal=_conformal(dev, cases) if dev and soft else (),
        robustness=robustness_of(cases, disturbed, threshold, resamples=resamples, seed=seed),
        contract=contract,
        provenance=provenance(joined, development, contract, study),
    )


def _require_one_model(cases: Cases, dev: Cases | None, contract: ModelContract | None) -> None:
    """Raise DataError where development or contract are of another model: thresholds would not fit the scores."""
    if contract is not None:
        require_same_model(cases, contract)
        require_not_chosen_on(contract, cases)
    if dev is None:
        return
    if dev.table.no_scores and not cases.table.no_scores:
        raise DataError(
            f"{dev.table.name}: nothing can be chosen, since {dev.table.no_scores}; predict the images"
        )
    made_by = {table.model.get("contract") for table in (cases.table, dev.table)} - {None}
    if len(made_by) > 1:
        raise DataError(f"{dev.table.name} and {cases.table.name} are of different models; predict both with one")


def _calibrators(dev: Cases | None, soft: bool, calibration: CalibrationChoice) -> dict[str, Any]:
    """Ways to calibrate, by name; the raw temperatures need the raw scores of the development studies.

    Of joint types alone nothing is fitted but what is chosen, since no diagram compares the ways.
    """
    found: dict[str, Any] = {"as-is": None}
    if dev is not None and soft:
        if np.isfinite(dev.table.pred1[dev.rows]).all():
            found["temperature"] = fit_calibration(dev)
        found["isotonic"] = fit_isotonic(dev.labels, dev.p)
    elif dev is not None and dev.table.silent and calibration == "temperature":
        found["temperature"] = fit_calibration(dev)
    return found


def _apply(name: str, cases: Cases, calibrators: Mapping[str, Any]) -> Cases:
    if name not in calibrators:
        raise DataError(f"{cases.table.name}: calibration '{name}' needs the raw scores pred1; run predict again")
    how = calibrators[name]
    if how is None:
        return cases
    return dataclasses.replace(cases, p=how(cases.p)) if isinstance(how, Isotonic) else recalibrated(cases, how)


def _diagrams(cases: Cases, ways: Mapping[str, np.ndarray], resamples: int, seed: int) -> list[Reliability]:
    """Reliability of every way of calibrating, on the same resamples of patients."""
    every = np.arange(len(cases))
    parts = {name: Part(every, loss_statistic(cases.labels, p)) for name, p in ways.items()}
    draws = draw(parts, cases.patient, resamples=resamples, seed=seed)
    metrics = {name: ABNORMALITY[name] for name in LOSSES}
    return [
        Reliability(name, reliability(cases.labels, p), estimates(metrics, draws, name, {}, len(cases)))
        for name, p in ways.items()
    ]


def _points(
    dev: Cases | None, contract: ModelContract | None, no_scores: str | None, rules: Mapping[str, Rule]
) -> tuple[Mapping[str, OperatingPoint | float], str | None]:
    """Operating points to judge, and the reason where there are none."""
    if no_scores:
        return {}, no_scores
    if dev is not None:
        return choose_all(dev, rules), None
    if contract is None:
        return {}, "none chosen: pass development predictions (--dev) or the model (--model)"
    return contract.operating_points, None


def worst_errors(a: Assessment) -> dict[str, np.ndarray]:
    """Cases that are called wrongly, the most confident errors first, as indices into `a.cases`."""
    cases, calls = a.cases, a.cases.p >= a.study.threshold
    if cases.table.silent:
        return {}
    missed, alarms = np.flatnonzero(cases.labels & ~calls), np.flatnonzero(~cases.labels & calls)
    return {
        "false negatives": missed[np.argsort(cases.p[missed], kind="stable")],
        "false positives": alarms[np.argsort(-cases.p[alarms], kind="stable")],
    }


def _by_row(images: Cases) -> np.ndarray:
    p = np.full(len(images.table), np.nan)
    p[images.rows] = images.p
    return p


def _development(
    dev: Cases,
    shared: int,
    other_set: bool,
    points: Mapping[str, OperatingPoint | float],
    calibrators: Mapping[str, Any],
) -> Development:
    fitted = calibrators.get("temperature")
    return Development(
        table=dev.table.name,
        studies=len(dev),
        patients=len(dev.patients),
        shared_patients=shared,
        other_set=other_set,
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
