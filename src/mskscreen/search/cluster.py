"""The executor of many machines: Ray Tune, with the same runs in the same folders, which all machines must share.

Ray places the runs and begins those of a lost machine anew elsewhere, where they go on from what they saved. What
has ended stands in the folders and not in Ray: after the loss of the head, or of the process that drives the
search, the same command begins with what is left.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray import tune

from mskscreen.errors import DataError, MskscreenError
from mskscreen.search.plan import Plan, State, end, holding
from mskscreen.search.runner import conduct
from mskscreen.search.space import Run
from mskscreen.storage import disk_full
from mskscreen.training.run import Progress

log = logging.getLogger(__name__)

# A worker of a lost machine may live on for a moment and hold its run.
_PATIENCE = 120.0
# Seconds in which a cluster takes a connection.
_ANSWER = 10.0
# Times a run is begun anew after the loss of its machine.
LOSSES = 5


def run_on_ray(
    plan: Plan,
    runs: Sequence[Run],
    *,
    address: str = "auto",
    cpus: float = 1,
    gpus: float = 0,
    workers: int = 0,
    stop: Callable[[], bool] = lambda: False,
    ended: Callable[[Run], None] = lambda _: None,
) -> bool:
    """Conduct `runs` as trials of Ray Tune, each with so many processors, graphics processors and
    processes that read its images.

    `address` is that of a cluster, or `auto` for the one this machine belongs to, or a new one of this machine
    alone; who has connected to a cluster before uses that one and stays connected. Returns False where `stop` said
    yes: runs that were begun have saved themselves. `ended` is told of each run whose trial has ended. Raises
    MskscreenError where there is no cluster at the address.
    """
    # What a hospital trains is nobody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # It would end the trials where they are.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    theirs = ray.is_initialized()
    if not theirs:
        _connect(address)
    # The workers have working folders of their own.
    plan = replace(plan, folder=plan.folder.resolve())
    # In the folder that all machines share; of a new name, for one may be left of a search that was killed.
    asked = plan.folder / f".stop-{secrets.token_hex(4)}"
    watch = _Watch(plan, asked, stop, ended)
    try:
        names = [run.name for run in runs]
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trial, plan=plan, asked=asked, workers=workers), {"cpu": cpus, "gpu": gpus}
            ),
            param_space={"run": tune.grid_search(names)},
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(plan.folder),
                failure_config=tune.FailureConfig(max_failures=LOSSES),
                callbacks=[watch],
                stop=watch,
                verbose=0,
            ),
        )
        tuner.fit()
        return not asked.exists()
    finally:
        asked.unlink(missing_ok=True)
        if not theirs:
            ray.shutdown()


class _Watch(tune.Callback, tune.Stopper):
    """Tells of each trial that has ended, says of one that Ray gave up why its run failed, and stops them all."""

    def __init__(self, plan: Plan, asked: Path, stop: Callable[[], bool], ended: Callable[[Run], None]) -> None:
        self.plan, self.asked, self.stop, self.ended = plan, asked, stop, ended
        self.trials: Sequence[Any] = ()

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves it with the experiment; what draws a progress bar holds locks.
        return {"plan": self.plan, "asked": self.asked, "stop": _never, "ended": _no_one, "trials": ()}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Called by Tune: whether to stop one trial."""
        return False

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:  # noqa: ARG002
        """Called by Tune."""
        self.trials = trials

    def stop_all(self) -> bool:
        """Called by Tune after each step: whether to end, asked to stop and with all runs saved."""
        if not self.stop():
            return False
        self.asked.touch()
        return all(trial.status != "RUNNING" for trial in self.trials)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Called by Tune."""
        self.ended(self.plan.run(trial.config["run"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:  # noqa: ARG002
        """Called by Tune, when it gives a trial up."""
        run = self.plan.run(trial.config["run"])
        folder = self.plan.of(run)
        with suppress(DataError), holding(folder):
            end(folder, State.FAILED, f"Ray lost its worker {trial.num_failures} times", where="ray")
        self.ended(run)


def _no_one(_: Run) -> None:
    """Stands in a saved callback for whom it told."""


def _never() -> bool:
    """Stands in a saved callback for whom it asked."""
    return False


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Leave SIGTERM to whom it belonged before the block."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@_keeping_sigterm()
def _connect(address: str) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "include_dashboard": False, "logging_level": "error"}
    try:
        _require_listener(address)
        ray.init(address=address, **{k: v for k, v in options.items() if k != "include_dashboard"})
    except (OSError, ValueError) as error:
        if address != "auto":
            raise MskscreenError(
                f"no Ray cluster answers at '{address}'; start one with: ray start --head, or set "
                "RAY_AUTH_MODE=token if that one asks for a token"
            ) from error
        log.warning("no Ray cluster of this machine answers: using Ray on it alone")
        ray.init(**options)


def _require_listener(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray would try to connect for a quarter of an hour."""
    place = urlsplit(address if "//" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=_ANSWER).close()


def _trial(config: dict[str, str], plan: Plan, asked: Path, workers: int) -> None:
    """One trial: conducts its run until it ends or the file `asked` is there, and reports every epoch to Ray."""
    if asked.exists():
        tune.report({"state": str(State.WAITING)})
        return
    where = f"ray node {ray.get_runtime_context().get_node_id()}, process {os.getpid()}"

    def report(progress: Progress) -> None:
        if progress.metrics is not None:
            tune.report({"epoch": progress.epoch, **progress.metrics})

    try:
        run = plan.run(config["run"])
        found = conduct(
            plan, run, workers=workers, stop=asked.exists, report=report, where=where, patience=_PATIENCE
        )
    except Exception as error:
        # The run can go on when there is room, and would fail anew until then.
        if not disk_full(error):
            raise
        found = None
    tune.report({"state": str(found.state if found else State.WAITING)})
