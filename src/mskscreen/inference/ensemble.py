"""Several models as one: each with its own preprocessing and calibration; their probabilities are averaged."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.contract import TASKS, ModelContract
from mskscreen.errors import ModelError
from mskscreen.inference.engines import EngineName, Precision
from mskscreen.inference.grouping import StudyBy
from mskscreen.inference.screener import Screener
from mskscreen.pixels import Limits, Reading
from mskscreen.predictions import FLAG_LOW_CONFIDENCE, Prediction, Predictions, threshold

# Keeps the logarithm of a mean probability of zero finite.
_SMALLEST = 1e-12
_USUAL = Limits()


class Ensemble:
    """Screeners whose probabilities are averaged; one given twice weighs twice and runs once.

    Each task is averaged over the members that learned it. So are the threshold at an operating point, and the
    confidence below which a joint is flagged.
    """

    def __init__(self, screeners: Sequence[Screener]) -> None:
        """`screeners` are two or more, of any architectures and input sizes. Raises ModelError for fewer."""
        if len(screeners) < 2:
            raise ModelError("an ensemble needs at least two models; name another")
        self.screeners: list[Screener] = []
        self.weights: list[int] = []
        keys: list[tuple[str, str, str]] = []
        for screener in screeners:
            engine = screener.engine
            key = (engine.digest, engine.contract.digest, engine.precision)
            if engine.digest and key in keys:  # a server need not say the digest of its model
                self.weights[keys.index(key)] += 1
            else:
                keys.append(key)
                self.screeners.append(screener)
                self.weights.append(1)

    @classmethod
    def load(
        cls,
        models: Sequence[str | Path],
        *,
        engine: EngineName = "auto",
        precision: Precision = "auto",
        unapproved: bool = False,
        reading: Reading = "whole",
        limits: Limits = _USUAL,
    ) -> Ensemble:
        """Open every model: see `Screener.load`."""
        load = functools.partial(
            Screener.load,
            engine=engine,
            precision=precision,
            unapproved=unapproved,
            reading=reading,
            limits=limits,
        )
        return cls([load(model) for model in models])

    @property
    def operating_points(self) -> dict[str, float]:
        """Thresholds of the points that every member has of those that learned abnormality."""
        contracts, weights = self._of("abnormality")
        names = [
            name for name in contracts[0].operating_points if all(name in c.operating_points for c in contracts)
        ]
        return {name: mean([threshold(c, name) for c in contracts], weights) for name in names}

    def _of(self, task: str) -> tuple[list[ModelContract], list[int]]:
        """Contracts and weights of the members that learned a task; of all where none did."""
        members = list(zip((each.engine.contract for each in self.screeners), self.weights, strict=True))
        found = [member for member in members if task in member[0].tasks] or members
        return [contract for contract, _ in found], [weight for _, weight in found]

    def describe(self, at: str = "balanced") -> dict[str, Any]:
        """What a predictions table says of the models that made it: as `Screener.describe`, with its `members`."""
        members = [screener.describe(at) for screener in self.screeners]

        def digest(key: str) -> str:
            pairs = (f"{weight} {member[key]}" for weight, member in zip(self.weights, members, strict=True))
            return hashlib.sha256("\n".join(pairs).encode()).hexdigest()

        def either(key: str) -> str:
            return ", ".join(sorted({member[key] for member in members}))

        return {key: value for key, value in members[0].items() if key != "server"} | {
            "name": f"ensemble of {sum(self.weights)}",
            "architecture": either("architecture"),
            "engine": either("engine"),
            "sha256": digest("sha256"),
            "contract": digest("contract"),
            "precision": either("precision"),
            "tasks": [task for task in TASKS if any(task in member["tasks"] for member in members)],
            "members": [
                {key: member[key] for key in ("name", "sha256", "server") if key in member} | {"weight": weight}
                for weight, member in zip(self.weights, members, strict=True)
            ],
        }

    def stream(
        self,
        sources: Iterable[Path],
        *,
        at: str = "balanced",
        study_by: StudyBy = "auto",
        workers: int | None = None,
    ) -> Generator[Prediction]:
        """Rows as of `Screener.stream`, averaged one by one; an image that a member cannot score is an error."""
        files = list(sources)
        contracts, weights = self._of("joint")
        confidence = mean([contract.joint_confidence for contract in contracts], weights)
        point = self.operating_points[at]
        with ExitStack() as stack:
            streams = [  # at their usual points: those that did not learn abnormality may lack this one
                stack.enter_context(closing(screener.stream(files, study_by=study_by, workers=workers)))
                for screener in self.screeners
            ]
            for rows in zip(*streams, strict=True):
                yield averaged(rows, self.weights, point, confidence)


def mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Weighted mean, rounded once."""
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def averaged(
    rows: Sequence[Prediction], weights: Sequence[int], threshold: float, joint_confidence: float = 0.0
) -> Prediction:
    """One row from those of several models for the same image: the weighted means of the calibrated probabilities.

    Of a task that a row does not speak of, the mean is that of the others. Scores are the logarithms of the means,
    whose softmax gives the means again. Flags are those that any member raised, save for the low confidence of a
    joint, which is judged afresh. `threshold` is that of abnormality.
    """
    first = next((row for row in rows if not row.scored), rows[0])
    if not first.scored:
        return first
    flags = {flag: None for row in rows for flag in row.flags if flag != FLAG_LOW_CONFIDENCE}
    found: dict[str, Any] = {"flags": tuple(flags), "novelty": None}
    both = list(zip(rows, weights, strict=True))
    if abnormal := [(row.p_abnormal, weight) for row, weight in both if row.p_abnormal is not None]:
        p_abnormal = mean(*zip(*abnormal, strict=True))
        scores = _logarithms((1 - p_abnormal, p_abnormal))
        found |= {"p_abnormal": p_abnormal, "abnormal": p_abnormal >= threshold, "pred1": scores}
    if joint := [(row.p_joint, weight) for row, weight in both if row.p_joint is not None]:
        values, of = zip(*joint, strict=True)
        p_joint = tuple(mean(column, of) for column in zip(*values, strict=True))
        label = JointType(int(np.argmax(p_joint))).label
        found |= {"joint": label, "p_joint": p_joint, "pred2": _logarithms(p_joint)}
        if max(p_joint) < joint_confidence:
            found["flags"] = (FLAG_LOW_CONFIDENCE, *flags)
    return replace(first, **found)


def averaged_tables(tables: Sequence[Predictions], weights: Sequence[int]) -> Predictions:
    """The table of an ensemble from those of its members, whose rows name the same images in the same order."""
    threshold = mean([table.threshold for table in tables], weights)
    rows = tuple(averaged(same, weights, threshold) for same in zip(*tables, strict=True))
    return Predictions(rows, {"name": f"ensemble of {sum(weights)}"}, threshold)


def _logarithms(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(math.log(max(value, _SMALLEST)) for value in values)
