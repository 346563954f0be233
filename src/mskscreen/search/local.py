"""The executor of one machine: every run is a process of its own, so that a crash is the end of one run only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch

from mskscreen.errors import DataError
from mskscreen.inference.engines import cores
from mskscreen.search.plan import Plan, State, end, ending, holding
from mskscreen.search.runner import FULL
from mskscreen.search.space import Run
from mskscreen.storage import MAKE_ROOM

LOG = "log.txt"
_POLL = 0.2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_here(
    plan: Plan,
    runs: Sequence[Run],
    *,
    jobs: int = 1,
    workers: int = 0,
    stop: Callable[[], bool] = lambda: False,
    ended: Callable[[Run], None] = lambda _: None,
) -> bool:
    """Conduct `runs`, as many as `jobs` at a time, each with its share of the cores and one of the GPUs.

    `workers` are the processes that read the images of each. Returns False where `stop` said yes. A process that
    saves itself is waited for. One that was killed leaves its run failed. `ended` is told of each run whose
    process has ended, however it ended. Raises DataError, when all have stopped, where the disk is full.
    """
    waiting = list(reversed(runs))
    active: list[tuple[int, Run, subprocess.Popen[bytes]]] = []
    stopped = full = False
    try:
        while waiting or active:
            if not stopped and (full or stop()):
                stopped = True
                waiting.clear()
                for _, _, process in active:
                    process.terminate()
            while waiting and len(active) < jobs:
                run, slot = waiting.pop(), min({*range(jobs)} - {slot for slot, _, _ in active})
                active.append((slot, run, _begin(plan, run, jobs, slot, workers)))
            for _, run, process in active:
                if process.poll() is not None:
                    full = full or process.returncode == FULL
                    if not (stopped or full):
                        _close(plan, run, process.returncode)
                    ended(run)
            active = [entry for entry in active if entry[2].returncode is None]
            time.sleep(_POLL if active else 0)
    finally:
        for _, _, process in active:
            process.kill()
            process.wait()
    if full:
        raise DataError(f"{plan.folder}: disk full, stopped; {MAKE_ROOM}, which goes on")
    return not stopped


def device_of(slot: int) -> dict[str, str]:
    """What tells the process in a slot its GPU: in turn those that this process sees; nothing where it is one."""
    count = torch.cuda.device_count()
    if count < 2:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[slot % count]}


def threads_of(jobs: int) -> dict[str, str]:
    """What tells a process its share of the cores, where the environment does not say how many threads to use."""
    if "OMP_NUM_THREADS" in os.environ:
        # The others follow it, unless they are set themselves.
        return {}
    return {name: str(max(1, cores() // jobs)) for name in _THREADS if name not in os.environ}


def _begin(plan: Plan, run: Run, jobs: int, slot: int, workers: int) -> subprocess.Popen[bytes]:
    folder = plan.of(run)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab") as log:
        # The process reads stdin to its end, which comes when this one ends: no orphan goes on training.
        return subprocess.Popen(  # noqa: S603 - our own module, with names that we made
            [sys.executable, "-m", "mskscreen.search.runner", str(plan.folder), run.name, str(workers)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | threads_of(jobs) | device_of(slot),
        )


def _close(plan: Plan, run: Run, code: int) -> None:
    """Say of a process that died without a word that its run failed, unless another process has taken it over."""
    folder = plan.of(run)
    if code == 0 or ending(folder) is not None:
        return
    # Killed by a signal: most often the system's, for want of memory.
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    with suppress(DataError), holding(folder):
        end(folder, State.FAILED, f"its process {how}; {folder / LOG} has what it said last", where="local")
