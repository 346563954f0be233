"""What a map explains: one class of one head, by its log-odds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mskscreen.anatomy import ABNORMALITY_LABELS, JOINT_LABELS
from mskscreen.contract import TASKS, ModelContract
from mskscreen.errors import DataError, ModelError

# Log-odds (n,) of a class for model inputs (n, 1, H, W).
Score = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
JOINT = "joint"


@dataclass(frozen=True)
class Target:
    """The class that a map speaks of: `output` is `pred1` or `pred2`, `index` its place there."""

    output: str
    index: int

    @classmethod
    def parse(cls, text: str, joint: str | None = None) -> Target:
        """A class by its label; `joint` stands for the predicted one.

        Raises DataError for an unknown label.
        """
        label = joint if text == JOINT and joint else text
        for output, labels in (("pred1", ABNORMALITY_LABELS), ("pred2", JOINT_LABELS)):
            if label in labels:
                return cls(output, labels.index(label))
        known = ", ".join((*ABNORMALITY_LABELS, JOINT, *JOINT_LABELS))
        raise DataError(f"class '{text}' is unknown; choose from {known}")

    @property
    def task(self) -> str:
        """The task of its head, of `contract.TASKS`."""
        return TASKS[self.output == "pred2"]

    @property
    def label(self) -> str:
        """The name of the class."""
        return (ABNORMALITY_LABELS if self.output == "pred1" else JOINT_LABELS)[self.index]

    def log_odds(self, outputs: Mapping[str, npt.NDArray]) -> npt.NDArray[np.float64]:
        """Log-odds (n,) of the class against all others of its head; for two classes the difference of scores."""
        scores = np.asarray(outputs[self.output], np.float64)
        others = np.delete(scores, self.index, axis=1)
        top = others.max(axis=1)
        found: npt.NDArray[np.float64] = scores[:, self.index] - (
            top + np.log(np.exp(others - top[:, None]).sum(axis=1))
        )
        return found

    def direction(self, scores: npt.NDArray) -> npt.NDArray[np.float64]:
        """Gradient (k,) of the log-odds with respect to the scores (k,) of the head."""
        others = np.array(scores, np.float64)
        others[self.index] = -np.inf
        others = np.exp(others - others.max())
        gradient: npt.NDArray[np.float64] = -others / others.sum()
        gradient[self.index] = 1
        return gradient


ABNORMAL = Target("pred1", 1)


def require_learned(contract: ModelContract, target: Target) -> None:
    """Raise ModelError where a model did not learn the task of a target: a map would show noise."""
    if target.task not in contract.tasks:
        of = JOINT if target.task == TASKS[0] else ABNORMAL.label
        raise ModelError(
            f"{contract.title} did not learn {target.task}, so that a map of it means nothing; explain "
            f"what it learned with: mskscreen explain --of {of}, or name another model"
        )


class Explained(NamedTuple):
    """A map (h, w) whose cells tile the model's input evenly, and what it cost.

    `passes` are forward passes of the model; `error` is the largest standard error of a cell where the map is an
    average over random masks, else None, and `converged` whether it fell below the bound that was asked for.
    """

    values: npt.NDArray[np.float32]
    passes: int
    error: float | None = None
    converged: bool | None = None
