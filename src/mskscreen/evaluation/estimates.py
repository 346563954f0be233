"""An estimate with its intervals, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mskscreen.evaluation import intervals
from mskscreen.evaluation.intervals import Draws, Interval
from mskscreen.evaluation.metrics import Metric, reason

# What is printed where several intervals are known; see docs/numbers.md for the choice.
PREFERRED = ("inverted", "bca", "percentile", "delong", "wilson")
_ONE_PATIENT = "no interval: all cases are of one patient"


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % intervals by method; `value` is None where it is undefined, and `reason` says why."""

    value: float | None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reason: str | None = None

    @property
    def interval(self) -> Interval | None:
        """The interval that is printed: BCa (for ECE: inverted), else the next of `PREFERRED` that is defined."""
        return next((self.intervals[name] for name in PREFERRED if name in self.intervals), None)

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        found = self.interval
        return f"{self.value:.3f}" + (f" ({found.low:.3f} to {found.high:.3f})" if found else "")


def estimate(
    value: float, replicates: np.ndarray | None, jackknife: np.ndarray | None, why: str = "not defined"
) -> Estimate:
    """An estimate with the percentile and BCa intervals that are defined.

    Without a usable replicate the value stands alone and `reason` says that it has no interval.
    """
    if not np.isfinite(value):
        return Estimate(None, reason=why)
    if replicates is None:
        return Estimate(float(value), reason=_ONE_PATIENT)
    found = {"percentile": intervals.percentile(replicates)}
    if jackknife is not None:
        found["bca"] = intervals.bca(value, replicates, jackknife)
    known = {name: interval for name, interval in found.items() if interval is not None}
    return Estimate(float(value), known, None if known else _no_interval(replicates))


def estimate_of_gaps(gaps: np.ndarray, replicates: np.ndarray | None, why: str = "not defined") -> Estimate:
    """The sum of the absolute `gaps` (k,), with the interval that inverts tests; `replicates` (R, k)."""
    if not np.isfinite(gaps).all():
        return Estimate(None, reason=why)
    value = float(np.abs(gaps).sum())
    if replicates is None:
        return Estimate(value, reason=_ONE_PATIENT)
    found = intervals.inverted(gaps, replicates)
    return Estimate(value, {"inverted": found} if found else {}, None if found else _no_interval(replicates))


def _no_interval(replicates: np.ndarray) -> str:
    if np.isfinite(replicates).all():
        return "no interval: every resample gives the same value"
    return "no interval: undefined in more than 5 % of the resamples"


def estimates(
    metrics: Mapping[str, Metric],
    draws: Draws,
    part: str,
    occurs: Mapping[str, int],
    cases: int,
    no_scores: str | None = None,
) -> dict[str, Estimate]:
    """Estimates of every metric of a part of the draws, in the order of `metrics`."""
    values = draws.estimate[part]
    again, left_out = draws.replicates.get(part), draws.jackknife.get(part)
    found = {}
    for name, metric in metrics.items():
        why = reason(metric, occurs, cases, no_scores)
        if metric.biased and f"{name}_gaps" in values:
            gaps = f"{name}_gaps"
            found[name] = estimate_of_gaps(values[gaps], again[gaps] if again else None, why)
        else:
            found[name] = estimate(
                values.get(name, np.nan),
                again.get(name) if again else None,
                left_out.get(name) if left_out else None,
                why,
            )
    return found
