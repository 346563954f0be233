"""The layers between the last feature map and the scores, each with its gradient in closed form.

Back-propagation to the last feature map passes only pooling, linear layers and ReLUs. Written out as
tensor products with the same weights, it becomes part of the forward graph: HiResCAM (Draelos & Carin,
arXiv:2011.08891) then costs one forward pass, in any engine that runs ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mskscreen.errors import ModelError


class Average(nn.Module):
    """Global average pooling, (B, C, h, w) -> (B, C)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))

    def gradient(self, features: Tensor, pooled: Tensor, upstream: Tensor) -> Tensor:  # noqa: ARG002
        """Gradient with respect to `features`, (B, C, 1, 1), given that of the output, (B, C)."""
        return (upstream / (features.shape[2] * features.shape[3]))[:, :, None, None]


class GeneralisedMean(nn.Module):
    """Generalised-mean pooling with exponent 3 (Radenovic et al., arXiv:1711.02512), (B, C, h, w) -> (B, C).

    It lies between the average and the maximum, so a lesion of a few cells is not averaged away. Negative
    features count as zero.
    """

    floor = 1e-6

    def forward(self, features: Tensor) -> Tensor:
        # Cubes of bfloat16 features lose too much.
        positive = features.float().clamp(min=self.floor)
        return (positive * positive * positive).mean((2, 3)).pow(1 / 3)

    def gradient(self, features: Tensor, pooled: Tensor, upstream: Tensor) -> Tensor:
        """Gradient with respect to `features`, given that of the output: (A / g)^2 / hw."""
        ratio = features.float().clamp(min=0) / pooled[:, :, None, None]
        return ratio * ratio * (upstream / (features.shape[2] * features.shape[3]))[:, :, None, None]


class WideLayers(nn.Module):
    """VGG's two 4096-wide layers, held as convolutions (the first 7x7) so that larger inputs work too.

    Dropout acts behind the first ReLU while training; the gradient leaves it out.
    """

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, dropout: float) -> None:
        super().__init__()
        self.first, self.second, self.dropout = first, second, nn.Dropout(dropout)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activations of both layers, (B, 4096, h, w) each.

        Raises ModelError where the input image is smaller than 224 pixels.
        """
        if min(features.shape[2:]) < self.first.kernel_size[0]:
            raise ModelError("VGG's first wide layer covers 224 pixels: use an input size of at least 224")
        first = functional.relu(self.first(features))
        return first, functional.relu(self.second(self.dropout(first)))

    def gradient(self, activations: tuple[Tensor, ...], upstream: Tensor) -> Tensor:
        """Gradient with respect to the features, given both activations and the gradient of the second."""
        first, second = activations
        inner = functional.conv_transpose2d(torch.where(second > 0, upstream, 0.0), self.second.weight)
        return functional.conv_transpose2d(torch.where(first > 0, inner, 0.0), self.first.weight)


POOLING: dict[str, type[Average | GeneralisedMean]] = {"avg": Average, "gem": GeneralisedMean}
