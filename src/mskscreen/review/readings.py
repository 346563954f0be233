"""The answers of the readers as arrays, and whether their boxes and the maps point at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.evaluation.agreement import UNRATED
from mskscreen.review.forms import Answer
from mskscreen.review.protocol import Key, View
from mskscreen.saliency.measures import TOLERANCE

# A random point falls on one of at most this many places a side.
_GRID = 512


@dataclass(frozen=True)
class Readings:
    """Answers of one phase, first and `again`, as arrays (cases, readers); UNRATED where there is none."""

    call: np.ndarray
    again: np.ndarray
    judgement: np.ndarray
    judgement_again: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray
    chance: np.ndarray
    boxed: np.ndarray


def readings(key: Key, answers: Sequence[Answer], readers: Sequence[str], phase: str) -> Readings:
    """The answers of these readers in one phase."""
    shape = (len(key.cases), len(readers))
    found = Readings(*(np.full(shape, UNRATED) for _ in range(5)), *(np.zeros(shape) for _ in range(3)))
    for answer in answers:
        showing = key.showings[answer.code]
        if showing.phase != phase:
            continue
        cell = showing.case, readers.index(answer.reader)
        case = key.cases[showing.case]
        judgement = answer.judgement if case.mapped else None
        asked = {"call": answer.call, "judgement": judgement}
        if showing.repeat:
            asked = {"again": answer.call, "judgement_again": judgement}
        else:
            asked["confidence"] = answer.confidence
            found.hits[cell], found.chance[cell], found.boxed[cell] = _pointed(case.views, answer)
        for name, value in asked.items():
            getattr(found, name)[cell] = UNRATED if value is None else value
    return found


def _pointed(views: Sequence[View], answer: Answer) -> tuple[int, float, int]:
    """Views whose map is highest in or near a box, the same expected of a random point, and maps with a box."""
    hits, chance, boxed = 0, 0.0, 0
    for number, view in enumerate(views):
        boxes = [box for box in answer.boxes if box.view == number]
        if boxes and view.mapped:
            boxed += 1
            reach = TOLERANCE * max(view.rows, view.columns)
            hits += view.peak is not None and any(box.near(*view.peak, reach) for box in boxes)
            y, x = np.ogrid[: min(view.rows, _GRID), : min(view.columns, _GRID)]
            x, y = ((axis + 0.5) * size / axis.size - 0.5 for axis, size in ((x, view.columns), (y, view.rows)))
            chance += float(np.mean(np.logical_or.reduce([box.near(x, y, reach) for box in boxes])))
    return hits, chance, boxed
