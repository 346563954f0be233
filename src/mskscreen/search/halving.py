"""Successive halving without a scheduler: a run asks, at each rung, what the others had there, and may stop.

This is the asynchronous rule of ASHA in its stopping form (Li et al., arXiv:1810.05934). The values are read from
the folders of the runs, so that every executor halves alike, and so does a search that goes on after a stop. The
best run is never stopped; of those that come first, when little is known, more go on than one in `factor`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence

from mskscreen.errors import DataError, short
from mskscreen.search.plan import Plan
from mskscreen.search.space import Run

HISTORY = "metrics.csv"


def survives(value: float, others: Sequence[float], factor: int) -> bool:
    """Whether a value is among the best 1 / `factor` of all values at its rung, and at least the best one is."""
    better = sum(other > value for other in others)
    return better < max(1, (len(others) + 1) // factor)


def verdict(plan: Plan, run: Run, epoch: int) -> str:
    """Why `run` stops after so many epochs, or an empty text where it goes on."""
    halving = plan.space.halving
    if halving is None or epoch not in halving.rungs(run.protocol.epochs):
        return ""
    rivals = [other for other in plan.runs if _judged_by(other) == _judged_by(run) and other != run]
    value = best_until(plan, run, epoch)
    others = [found for other in rivals if (found := best_until(plan, other, epoch)) is not None]
    if value is None or survives(value, others, halving.factor):
        return ""
    better = sum(other > value for other in others)
    return f"at epoch {epoch} {better} of {len(others) + 1} runs were better than its {value:.3f}"


def _judged_by(run: Run) -> tuple[str, int, str]:
    """What makes scores comparable: a joint is far easier to tell than an abnormality, a fold than another."""
    return score_name(run), run.protocol.fold, run.protocol.labels


def best_until(plan: Plan, run: Run, epoch: int) -> float | None:
    """Best development score of a run within its first `epoch` epochs; None where it has not come so far."""
    scores = development_scores(plan, run)
    return max(scores[:epoch]) if len(scores) >= epoch else None


def score_name(run: Run) -> str:
    """The figure of the development fold by which the best weights of a run are chosen."""
    return "joint_auroc" if run.protocol.tasks == "joint" else "abnormality_auroc"


def development_scores(plan: Plan, run: Run) -> list[float]:
    """Development score of each whole epoch of a run; minus infinity where it is undefined."""
    path = plan.of(run) / HISTORY
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            scores = [float(row.get(score_name(run)) or "nan") for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: not the history of a run ({short(error, 200)}); delete it") from error
    return [score if math.isfinite(score) else -math.inf for score in scores]
