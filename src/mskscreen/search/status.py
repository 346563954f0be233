"""How far a search is, read from its folder while it runs or when it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mskscreen.search.cost import Cost
from mskscreen.search.halving import best_until, development_scores
from mskscreen.search.plan import Plan, State, ending, events, is_held, spent
from mskscreen.search.space import Run

RUNNING = "running"


@dataclass(frozen=True)
class Standing:
    """How far one run is: its state, why it ended so, the epochs it has had, and its best development score.

    `state` is that of `State`, or `running` where a process holds the run; `where` is the process that had it
    last; `seconds` is what it has taken, and `seconds_left` what it still needs, None where it has ended.
    """

    run: Run
    state: str
    reason: str
    epoch: int
    score: float | None
    where: str
    seconds: float
    seconds_left: float | None


def standings(plan: Plan, costs: Mapping[str, Cost]) -> list[Standing]:
    """How far every run is, in the order in which they are begun."""
    return [_standing(plan, run, costs[run.name].seconds) for run in plan.runs]


def seconds_left(found: list[Standing]) -> float:
    """Seconds until all have ended, if as many go on at a time as do now (at least one)."""
    running = sum(standing.state == RUNNING for standing in found)
    return sum(standing.seconds_left or 0.0 for standing in found) / max(1, running)


def _standing(plan: Plan, run: Run, seconds: float) -> Standing:
    folder = plan.of(run)
    end = ending(folder)
    held = end is None and is_held(folder)
    epoch = len(development_scores(plan, run))
    return Standing(
        run=run,
        state=str(end.state) if end else RUNNING if held else str(State.WAITING),
        reason=end.reason if end else "",
        epoch=epoch,
        score=best_until(plan, run, epoch) if epoch else None,
        where=next(
            (event.get("where", "") for event in reversed(list(events(folder))) if event["event"] == "begin"), ""
        ),
        seconds=end.seconds if end else spent(folder, held=held),
        seconds_left=None if end else seconds * (1 - epoch / run.protocol.epochs),
    )
