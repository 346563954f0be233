"""An estimate with its intervals, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mskscreen.evaluation import intervals
from mskscreen.evaluation.intervals import Draws, Interval
from mskscreen.evaluation.metrics import Metric, reason

# What is printed where several intervals are known; see docs/numbers.md for the choice.
PREFERRED = ("basic", "bca", "percentile", "delong", "wilson")


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % intervals by method; `value` is None where it is undefined, and `reason` says why."""

    value: float | None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reason: str | None = None

    @property
    def interval(self) -> Interval | None:
        """The interval that is printed: the basic one, else BCa, else the next of `PREFERRED` that is defined."""
        return next((self.intervals[name] for name in PREFERRED if name in self.intervals), None)

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        found = self.interval
        return f"{self.value:.3f}" + (f" ({found.low:.3f}-{found.high:.3f})" if found else "")


def estimate(
    value: float,
    replicates: np.ndarray | None,
    jackknife: np.ndarray | None,
    why: str = "not defined",
    *,
    biased: bool = False,
) -> Estimate:
    """An estimate with the bootstrap intervals that are defined: the basic one if `biased`, else the others.

    Without a usable replicate the value stands alone and `reason` says that it has no interval.
    """
    if not np.isfinite(value):
        return Estimate(None, reason=why)
    if replicates is None:
        return Estimate(float(value), reason="no interval: all cases are of one patient")
    if biased:
        found = {"basic": intervals.basic(value, replicates)}
    else:
        found = {"percentile": intervals.percentile(replicates)}
    if jackknife is not None and not biased:
        found["bca"] = intervals.bca(value, replicates, jackknife)
    known = {name: interval for name, interval in found.items() if interval is not None}
    return Estimate(float(value), known, None if known else _no_interval(replicates))


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
    *,
    scores: bool = True,
) -> dict[str, Estimate]:
    """Estimates of every metric of a part of the draws, in the order of `metrics`."""
    values = draws.estimate[part]
    return {
        name: estimate(
            values.get(name, np.nan),
            draws.replicates[part].get(name) if part in draws.replicates else None,
            draws.jackknife[part].get(name) if part in draws.jackknife else None,
            reason(metric, occurs, cases, scores=scores),
            biased=metric.biased,
        )
        for name, metric in metrics.items()
    }
