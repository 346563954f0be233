"""A long list worked through by several processes, in blocks, whatever becomes of a process.

Decoders are native code that may die on a hostile file. The block a process died on is tried again in halves,
until the one item that kills is known; only that item counts as failed. Results do not depend on the number of
processes: each has a single thread.
"""

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
from typing import TypeVar

from mskscreen.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def in_blocks(
    function: Callable[[Item], Result],
    blocks: Sequence[Sequence[Item]],
    *,
    workers: int,
    crashed: Callable[[Item], Result],
) -> Iterator[tuple[int, list[Result]]]:
    """Number and results of each block, in the order they finish.

    `crashed` gives the result of an item that kills its process, or raises. `function` and the items must be
    picklable. With fewer than two workers all runs in this process, where nothing guards against a crash. Raises
    DataError where processes do not start, and whatever `function` raises.
    """
    if workers < 2:
        for number, block in enumerate(blocks):
            yield number, _apply(function, block)
        return
    left = list(range(len(blocks)))[::-1]
    while left:
        waiting: dict[Future[list[Result]], int] = {}
        broken = False
        with _pool(workers) as pool:
            while (left and not broken) or waiting:
                # A short queue bounds the memory that finished blocks take.
                while left and not broken and len(waiting) < 2 * workers:
                    number = left.pop()
                    try:
                        waiting[pool.submit(_apply, function, blocks[number])] = number
                    except BrokenProcessPool:
                        left.append(number)
                        broken = True
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    number = waiting.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken = True
                        yield number, _alone(function, blocks[number], crashed)
                    else:
                        yield number, future.result()


def _apply(function: Callable[[Item], Result], block: Sequence[Item]) -> list[Result]:
    return [function(item) for item in block]


def _alone(
    function: Callable[[Item], Result], block: Sequence[Item], crashed: Callable[[Item], Result]
) -> list[Result]:
    """Results of a block that may have killed its process, in a process of its own."""
    try:
        with _pool(1) as pool:
            return pool.submit(_apply, function, block).result()
    except BrokenProcessPool:
        if len(block) == 1:
            return [crashed(block[0])]
        half = len(block) // 2
        return _alone(function, block[:half], crashed) + _alone(function, block[half:], crashed)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are known to start: else every item would seem to kill its process."""
    with _one_thread_each():
        # Fork would copy the locks of a parent's threads; spawn starts clean on every system.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_serve)
        try:
            try:
                pool.submit(int).result()
            except BrokenProcessPool as error:
                raise DataError(
                    "worker processes do not start; "
                    "use one worker, or put the script behind: if __name__ == '__main__'"
                ) from error
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
