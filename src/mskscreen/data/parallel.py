"""A long list worked through by several processes, in blocks, whatever becomes of a process.

Decoders are native code that may die on a hostile file. The block a process died on is tried again in halves,
until the one item that kills is known; only that item counts as failed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from mskscreen.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Fork would copy the locks of a parent's threads; spawn starts clean on every system.
_CONTEXT = multiprocessing.get_context("spawn")


def in_blocks(
    function: Callable[[Item], Result],
    blocks: Sequence[Sequence[Item]],
    *,
    workers: int,
    crashed: Callable[[Item], Result],
) -> Iterator[tuple[int, list[Result]]]:
    """Number and results of each block, in the order they finish.

    `crashed` gives the result of an item that kills its process. `function` and the items must be picklable.
    With fewer than two workers all runs in this process, where nothing guards against a crash.
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
            try:
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
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that are known to start: else every item would seem to kill its process."""
    pool = ProcessPoolExecutor(workers, _CONTEXT)
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise DataError(
            "worker processes do not start; use one worker, or put the script behind: if __name__ == '__main__'"
        ) from error
    return pool


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
