"""The layers between the last feature map and the scores, each with its gradient in closed form.

Back-propagation to the last feature map passes only pooling, linear layers and ReLUs. Written out as
tensor products with the same weights, it becomes part of the forward graph: HiResCAM (Draelos & Carin,
arXiv:2011.08891) then costs one forward pass, in any engine that runs ONNX.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vgg import ConvMlp
from torch import Tensor, nn
from torch.nn import functional

from mskscreen.errors import ModelError

# What a layer keeps for its gradient; the last one is its output.
Activations = tuple[Tensor, ...]


class Average(nn.Module):
    """Global average pooling, (B, C, h, w) -> (B, C)."""

    def forward(self, features: Tensor) -> Activations:
        return (features.mean((2, 3)),)

    def gradient(self, features: Tensor, activations: Activations, upstream: Tensor) -> Tensor:  # noqa: ARG002
        """Gradient with respect to `features`, here equal in all cells, given that of the output, (B, C)."""
        return (upstream / (features.shape[2] * features.shape[3]))[:, :, None, None]


class GeneralisedMean(nn.Module):
    """Generalised-mean pooling with exponent 3 (Radenovic et al., arXiv:1711.02512), (B, C, h, w) -> (B, C).

    It lies between the average and the maximum, so a lesion of a few cells is not averaged away. Negative
    features count as zero.
    """

    floor = 1e-6

    def forward(self, features: Tensor) -> Activations:
        # Cubes of bfloat16 features lose too much.
        positive = features.float().clamp(min=self.floor)
        return ((positive * positive * positive).mean((2, 3)).pow(1 / 3),)

    def gradient(self, features: Tensor, activations: Activations, upstream: Tensor) -> Tensor:
        """Gradient with respect to `features`, given that of the output: (A / g)^2 / hw."""
        ratio = features.float().clamp(min=0) / activations[0][:, :, None, None]
        return ratio * ratio * (upstream / (features.shape[2] * features.shape[3]))[:, :, None, None]


class WideLayers(nn.Module):
    """VGG's two 4096-wide layers, (B, 512, 7, 7) -> (B, 4096), from timm's convolutional form of them.

    They are held as matrices because OpenVINO 2026.4 computes a transposed convolution wrongly where a
    convolution uses the same weights. Dropout acts behind the first ReLU while training; the gradient
    leaves it out.
    """

    def __init__(self, layers: ConvMlp, dropout: float) -> None:
        super().__init__()
        self.first, self.second = _as_linear(layers.fc1), _as_linear(layers.fc2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Activations:
        """Return the activations of both layers, (B, 4096) each.

        Raises ModelError where the features are not those of a 224-pixel image.
        """
        if features[0].numel() != self.first.in_features:
            raise ModelError("VGG's wide layers take 7 x 7 cells: use an input size of 224 x 224")
        first = functional.relu(self.first(features.flatten(1)))
        return first, functional.relu(self.second(self.dropout(first)))

    def gradient(self, features: Tensor, activations: Activations, upstream: Tensor) -> Tensor:
        """Gradient with respect to `features`, given that of the output, (B, 4096)."""
        first, second = activations
        inner = torch.matmul(torch.where(second > 0, upstream, 0.0), self.second.weight)
        return torch.matmul(torch.where(first > 0, inner, 0.0), self.first.weight).view_as(features)


def _as_linear(convolution: Any) -> nn.Linear:
    """A convolution that covers its whole input, as the linear layer it is."""
    weight = convolution.weight.detach().flatten(1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), convolution.bias
    return linear


POOLING: dict[str, type[Average] | type[GeneralisedMean]] = {"avg": Average, "gem": GeneralisedMean}
