"""One run of a search from its beginning, or from where it was stopped, to its end; also as a process of its own:

python -m mskscreen.search.runner search/ DIGEST [WORKERS]
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mskscreen.errors import DataError, MskscreenError
from mskscreen.inference import Screener
from mskscreen.predictions import FLAG_ERROR, Prediction, Predictions
from mskscreen.search.halving import development_scores, verdict
from mskscreen.search.plan import EVALUATION, MODEL, PATIENCE, Ending, Plan, State, end, ending, holding, note
from mskscreen.search.space import Run
from mskscreen.storage import disk_full
from mskscreen.training.course import DONE
from mskscreen.training.protocol import BEST
from mskscreen.training.run import Progress, train
from mskscreen.training.state import FILE as STATE

# Exit code of a process that found no room to write.
FULL = errno.ENOSPC


def conduct(
    plan: Plan,
    run: Run,
    *,
    workers: int = 0,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda _: None,
    where: str = "",
    patience: float = PATIENCE,
) -> Ending | None:
    """Train, export and evaluate one run; None where `stop` said yes, and it can go on from what it saved.

    `workers` are the processes that read its images. A run that has ended is left as it is. What goes wrong
    becomes its reason for failing, but for a full disk: that is raised, since the run can go on when there is
    room. Raises DataError where another process holds the run for longer than `patience` seconds.
    """
    folder = plan.of(run)
    with holding(folder, patience):
        if (before := ending(folder)) is not None:
            return before
        where = where or f"{socket.gethostname()} process {os.getpid()}"
        note(folder, "begin", where)
        try:
            state, reason = _conduct(plan, run, workers, stop, report)
        except Exception as error:  # whatever a library raises is the end of this run, not of the search
            if disk_full(error):
                raise
            state, reason = State.FAILED, str(error)
            if not isinstance(error, MskscreenError):
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if state is State.WAITING:
            note(folder, "save", where)
            return None
        ended = end(folder, state, reason, where=where)
        if state is State.STOPPED:
            # It never goes on: what that would take, 1.6 GB of a VGG, goes.
            (folder / STATE).unlink(missing_ok=True)
        return ended


def _conduct(
    plan: Plan, run: Run, workers: int, stop: Callable[[], bool], report: Callable[[Progress], None]
) -> tuple[State, str]:
    folder = plan.of(run)
    if not (folder / DONE).exists() and (reason := verdict(plan, run, len(development_scores(plan, run)))):
        # Killed after the epoch and before it was judged.
        return State.STOPPED, reason
    reasons: list[str] = []

    def watch(progress: Progress) -> None:
        report(progress)
        if progress.metrics is not None and (reason := verdict(plan, run, progress.epoch + 1)):
            reasons.append(reason)

    result = train(
        plan.data,
        run.protocol,
        folder,
        cache=plan.cache,
        workers=workers,
        # A search has more runs than devices: each run gets one.
        lightning={"devices": 1},
        report=watch,
        stop=lambda: bool(reasons) or stop(),
    )
    if not result.finished:
        return (State.STOPPED, reasons[0]) if reasons else (State.WAITING, "")
    evaluate(plan, folder)
    return State.DONE, ""


def evaluate(plan: Plan, folder: Path) -> None:
    """Export the best weights of a trained run and predict the evaluation set with the exported file."""
    from mskscreen.export import export_onnx
    from mskscreen.networks.checkpoint import load_checkpoint

    model = folder / MODEL
    if not model.exists():
        export_onnx(*load_checkpoint(folder / BEST), model)
    if not (folder / EVALUATION).exists():
        _predict(plan, Screener.load(model)).write(folder / EVALUATION)


def _predict(plan: Plan, screener: Screener) -> Predictions:
    """The evaluation set as files, decoded and screened as `predict` does, with the names of the manifest."""
    manifest = plan.held_out()
    found: dict[str, Path] = {}
    errors: dict[str, str] = {}
    for image in manifest["image"]:
        try:
            found[image] = manifest.tree.file(image)
        except DataError as error:
            errors[image] = str(error)
    screened = dict(zip(found, screener.stream(found.values()), strict=True))
    rows = tuple(
        replace(
            screened.get(image) or Prediction(image, image, flags=(FLAG_ERROR,), error=errors.get(image)),
            file=image,
            study=study or image,
            patient=patient,
        )
        for image, study, patient in zip(manifest["image"], manifest["study"], manifest["patient"], strict=True)
    )
    return Predictions(rows, screener.describe(), screener.engine.contract.operating_points["balanced"])


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield whether SIGTERM has come, or whoever holds the other end of stdin has ended."""
    event = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())

    def listen() -> None:
        # Not through sys.stdin: its lock, held while reading, would block every process that is forked meanwhile.
        while os.read(0, 1):
            pass
        event.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield event.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def main(search: str, name: str, workers: str = "0") -> None:
    """Conduct one run as a process that saves itself when it is asked to stop."""
    # Ctrl-C in a terminal reaches every process of the group; the parent decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plan = Plan.read(Path(search))
    with asked_to_stop() as stop:
        try:
            conduct(plan, plan.run(name), workers=int(workers), stop=stop)
        except Exception as error:
            print(error)
            if disk_full(error):
                sys.exit(FULL)
            # Another search has this run: that is no failure.
            if not isinstance(error, DataError):
                raise


if __name__ == "__main__":
    main(*sys.argv[1:])
