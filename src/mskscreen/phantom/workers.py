"""A pool of processes with a single thread each, whose result does not depend on how many there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

from mskscreen.errors import DataError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_AHEAD = 4

T = TypeVar("T")


def run_all(function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """`function(*task)` of every task as it becomes ready, in this process if `workers` is 1.

    Raises DataError if a worker is killed, and whatever `function` raises.
    """
    if workers <= 1 or len(tasks) < 2:
        for task in tasks:
            yield function(*task)
        return
    with _one_thread_each():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_serve)
        try:
            yield from _drained(pool, function, tasks, _AHEAD * workers)
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, most likely for want of memory; "
                "run the same command again with fewer --workers to go on"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _drained(
    pool: ProcessPoolExecutor, function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], ahead: int
) -> Iterator[T]:
    """Keep `ahead` tasks in flight, so that a long plan does not sit in the queue."""
    flying: set[Future[T]] = set()
    remaining = iter(tasks)
    while True:
        for task in remaining:
            flying.add(pool.submit(function, *task))
            if len(flying) >= ahead:
                break
        if not flying:
            return
        ready, flying = wait(flying, return_when=FIRST_COMPLETED)
        for future in ready:
            yield future.result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Spawned processes read these variables when they import numpy and numba."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve() -> None:
    """Leave Ctrl-C to the parent, and end when the parent was killed instead of waiting for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
