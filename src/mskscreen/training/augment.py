"""Augmentation as a printable string, as a protocol states it:

    rotation(15)|scale(0.9,1.1)|translation(0.1)|flip(0.5)|contrast(0.2)|gamma(0.8,1.25)|noise(0.02)|polarity(0.5)|erasing(0.25)

Steps run in the order written; rotation, scale and translation share one interpolation, at the place of the first.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from mskscreen.errors import ProtocolError, short

NONE = "none"


class _Form(NamedTuple):
    arguments: tuple[str, ...]
    low: float
    high: float


# The deviation is a share of full scale, other shares are of the image's size and of its contrast.
_FORMS = {
    "rotation": _Form(("degrees",), 0, 180),
    "scale": _Form(("from", "to"), 0.1, 10),
    "translation": _Form(("share",), 0, 1),
    "flip": _Form(("chance",), 0, 1),
    "contrast": _Form(("share",), 0, 1),
    "gamma": _Form(("from", "to"), 0.1, 10),
    "noise": _Form(("deviation",), 0, 1),
    "polarity": _Form(("chance",), 0, 1),
    "erasing": _Form(("chance",), 0, 1),
}
_AFFINE = ("rotation", "scale", "translation")


@dataclass(frozen=True)
class Augmentation:
    """A parsed augmentation string; `str` is the inverse of `parse`.

    Called with an image (1, H, W) in [0, 1] and a seed, it returns an image of the same shape and range; the same
    seed gives the same image in any process, and the global random state is left as it was.
    """

    steps: tuple[tuple[str, tuple[float, ...]], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read a string of the form above, or `none`; blanks do not matter.

        Raises ProtocolError that names the step at fault and the nearest known one.
        """
        plain = text.replace(" ", "")
        steps = tuple(_step(text, part) for part in plain.split("|")) if plain != NONE else ()
        names = [name for name, _ in steps]
        if twice := next((name for name in names if names.count(name) > 1), None):
            _fail(text, f"'{twice}' is given twice")
        return cls(steps)

    def __str__(self) -> str:
        written = (f"{name}({','.join(f'{value:.12g}' for value in values)})" for name, values in self.steps)
        return "|".join(written) or NONE

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for change in self._changes:
                image = change(image)
        return image.clamp(0, 1)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process builds its own transforms: they are closures, which cannot be pickled.
        return {"steps": self.steps}

    @cached_property
    def _changes(self) -> list[Callable[[Tensor], Tensor]]:
        given = dict(self.steps)
        affine = [name for name, _ in self.steps if name in _AFFINE]
        return [
            _affine(given) if name in _AFFINE else _BUILDERS[name](*values)
            for name, values in self.steps
            if name not in affine[1:]
        ]


def _step(text: str, part: str) -> tuple[str, tuple[float, ...]]:
    match = re.fullmatch(r"(\w*)(?:\(([^()]*)\))?", part, re.ASCII)
    name = match[1] if match else part
    if match is None or name not in _FORMS:
        name = short(name)
        nearest = difflib.get_close_matches(name, _FORMS, n=1, cutoff=0)[0]
        _fail(text, f"step '{name}' is unknown; the nearest known one is '{nearest}'")
    form = _FORMS[name]
    try:
        values = tuple(float(value) for value in (match[2] or "").split(","))
    except ValueError:
        values = ()
    if len(values) != len(form.arguments) or not all(form.low <= value <= form.high for value in values):
        wanted = f"{name}({','.join(form.arguments)})"
        _fail(text, f"'{short(part)}' is not understood; write '{wanted}', numbers from {form.low} to {form.high}")
    if values[0] > values[-1]:
        _fail(
            text, f"'{short(part)}' runs from {values[0]:g} down to {values[-1]:g}; write the smaller number first"
        )
    return name, values


def _fail(text: str, reason: str) -> NoReturn:
    raise ProtocolError(f"augmentation '{short(text)}': {reason}")


def _affine(given: dict[str, tuple[float, ...]]) -> Callable[[Tensor], Tensor]:
    share = given["translation"][0] if "translation" in given else 0.0
    return v2.RandomAffine(
        degrees=given.get("rotation", (0.0,))[0],
        translate=(share, share),
        scale=given.get("scale", (1.0, 1.0)),
        interpolation=InterpolationMode.BILINEAR,
        # What comes in from outside is black anyway; a stated fill would be carried along as a second image.
        fill=None,
    )


def _contrast(share: float) -> Callable[[Tensor], Tensor]:
    def change(image: Tensor) -> Tensor:
        # NumPy sums in one fixed order; torch's order, and so the last bit, depends on the number of threads.
        mean = float(image.numpy().mean(dtype=np.float64))
        factor = float(torch.empty(()).uniform_(1 - share, 1 + share))
        return ((image - mean) * factor + mean).clamp(0, 1)

    return change


def _gamma(low: float, high: float) -> Callable[[Tensor], Tensor]:
    def change(image: Tensor) -> Tensor:
        # Evenly in the logarithm: halving and doubling are equally likely.
        return image ** math.exp(float(torch.empty(()).uniform_(math.log(low), math.log(high))))

    return change


def _noise(deviation: float) -> Callable[[Tensor], Tensor]:
    def change(image: Tensor) -> Tensor:
        return (image + torch.randn(image.shape) * (deviation * float(torch.rand(())))).clamp(0, 1)

    return change


_BUILDERS: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "flip": v2.RandomHorizontalFlip,
    "contrast": _contrast,
    "gamma": _gamma,
    "noise": _noise,
    "polarity": v2.RandomInvert,
    "erasing": v2.RandomErasing,
}
