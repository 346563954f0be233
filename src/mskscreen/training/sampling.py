"""Which images an epoch shows, in which order, and the seed each one is augmented with."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from mskscreen.errors import ProtocolError


class Sampling(StrEnum):
    """How often an image is drawn.

    `natural` shows each image once; `class` draws with replacement so that normal and abnormal are equally
    frequent, `joint` so that the joint types are. These two leave out what has no label, or no joint type.
    """

    NATURAL = "natural"
    CLASS = "class"
    JOINT = "joint"


class Draw(NamedTuple):
    """One image to be shown: its row in the dataset and the seed of its augmentation."""

    row: int
    seed: int


class RadiographSampler(Sampler[Draw]):
    """The draws of an epoch, a function of seed and epoch alone: worker processes have no say in them.

    `labels` and `joints` are integers (n,), -1 where unknown. Of several `ranks` (processes of a distributed run)
    each gets every ranks-th draw, all equally many. Raises ProtocolError where nothing can be drawn.
    """

    def __init__(
        self,
        labels: np.ndarray,
        joints: np.ndarray,
        sampling: Sampling | str = Sampling.NATURAL,
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        balanced = {Sampling.CLASS: labels, Sampling.JOINT: joints}.get(Sampling(sampling))
        self.rows = len(labels)
        self.weights = None if balanced is None else _weights(balanced)
        self.seed, self.rank, self.ranks, self.epoch, self.first = seed, rank, ranks, 0, 0
        if len(self) == 0:
            raise ProtocolError(f"{self.rows} images cannot be shared by {ranks} processes; index more data")

    def set_epoch(self, epoch: int, first: int = 0) -> None:
        """Choose the epoch that the next iteration draws, and how many of its draws to leave out."""
        self.epoch, self.first = epoch, first

    def __len__(self) -> int:
        return self.rows // self.ranks - self.first

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            rows = rng.permutation(self.rows)
        else:
            rows = rng.choice(self.rows, self.rows, p=self.weights)
        seeds = rng.integers(0, 2**63 - 1, self.rows)
        mine = slice(self.rank + self.first * self.ranks, self.rows // self.ranks * self.ranks, self.ranks)
        return map(Draw, rows[mine].tolist(), seeds[mine].tolist())


def _weights(values: np.ndarray) -> np.ndarray:
    """Chance of each row (n,) such that every known value is equally likely."""
    known, counts = np.unique(values[values >= 0], return_counts=True)
    if not len(known):
        raise ProtocolError("no image has a value to balance by; use sampling 'natural'")
    weights = np.zeros(len(values))
    for value, count in zip(known, counts, strict=True):
        weights[values == value] = 1 / (count * len(known))
    return weights
