"""Class activation maps from the last feature map and the gradient of a score with respect to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def hirescam(features: Array, gradient: Array) -> Array:
    """Feature times gradient, summed over channels: (d, h, w) -> (h, w) (Draelos and Carin, arXiv:2011.08891)."""
    return np.einsum("dhw,dhw->hw", features, gradient)


def gradcam(features: Array, gradient: Array) -> Array:
    """Features weighted by their mean gradient, negative cells at zero (Selvaraju et al., arXiv:1610.02391)."""
    return np.maximum(np.einsum("dhw,d->hw", features, gradient.mean(axis=(1, 2))), 0)


def cam(features: Array, gradient: Array) -> Array:
    """Features weighted by the classifier's weights of a class (Zhou et al., arXiv:1512.04150).

    It is defined where one linear layer follows the global average. There the gradient is these weights, each
    over the number of cells, so that summing it over the cells gives them back.
    """
    return np.einsum("dhw,d->hw", features, gradient.sum(axis=(1, 2)))


FORMULAS: dict[str, Callable[[Array, Array], Array]] = {"hirescam": hirescam, "gradcam": gradcam, "cam": cam}
