"""Many jobs under way, results in order: the one idiom that the engines and the pipeline share."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(items: Iterable[Item], start: Callable[[Item], Callable[[], Result]], depth: int) -> Iterator[Result]:
    """Results of `start(item)()` in the order of `items`, with at most `depth` jobs under way.

    `start` begins a job and returns the call that waits for it. Items are drawn only when there is room, so
    memory is bounded by `depth` and a slow consumer holds the producer back. Jobs still under way when the
    iterator is closed, or an error passes, are waited for.
    """
    waiting: deque[Callable[[], Result]] = deque()
    try:
        for item in items:
            waiting.append(start(item))
            if len(waiting) >= depth:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    finally:
        for wait in waiting:
            with contextlib.suppress(Exception):
                wait()
