"""Integrated gradients of a checkpoint: the one method here that differentiates through the whole network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mskscreen.networks.network import OUTPUTS, ScreeningNetwork


def scores(network: ScreeningNetwork, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """`pred1` (1, 2) and `pred2` (1, 7) of one `image` (1, H, W)."""
    network.eval()
    with torch.no_grad():
        found = network(torch.from_numpy(image)[None])
    return {name: found[OUTPUTS.index(name)].float().numpy() for name in ("pred1", "pred2")}


def integrated_gradients(
    network: ScreeningNetwork, image: npt.NDArray[np.float32], output: str, index: int, steps: int = 32
) -> npt.NDArray[np.float32]:
    """Contribution (H, W) of each pixel of `image` (1, H, W) to the log-odds of class `index` of `output`.

    Sundararajan et al., arXiv:1703.01365, by captum: from a black image in `steps` of Gauss-Legendre quadrature.
    The contributions add up to the log-odds of the image less those of the black one.
    """
    from captum.attr import IntegratedGradients

    head = OUTPUTS.index(output)

    def log_odds(images: Tensor) -> Tensor:
        scores = network(images)[head]
        others = torch.cat([scores[:, :index], scores[:, index + 1 :]], 1)
        return scores[:, index] - others.logsumexp(1)

    network.eval()
    found = IntegratedGradients(log_odds).attribute(
        torch.from_numpy(image)[None], n_steps=steps, internal_batch_size=8
    )
    values: npt.NDArray[np.float32] = found[0, 0].detach().float().numpy()
    return values
