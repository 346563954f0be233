"""The layers between the last feature map and the scores, each with its evidence map in closed form.

HiResCAM (Draelos & Carin, arXiv:2011.08891) sums feature times gradient over the channels. Back-propagation
to the last feature map passes only pooling, linear layers and ReLUs. Written out as tensor products with
the same weights, it becomes part of the forward graph: the map then costs one forward pass, in any engine
that runs ONNX.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vgg import ConvMlp
from torch import Tensor, nn
from torch.nn import functional

# What a layer keeps for its map; the last one is its output.
Activations = tuple[Tensor, ...]


class Average(nn.Module):
    """Global average pooling, (B, C, h, w) -> (B, C)."""

    def forward(self, features: Tensor) -> Activations:
        return (features.mean((2, 3)),)

    def evidence(self, features: Tensor, activations: Activations, upstream: Tensor) -> Tensor:  # noqa: ARG002
        """The map (B, 1, h, w), given the gradient with respect to the output, (B, C)."""
        return _weighted_sum(features, upstream)


class GeneralisedMean(nn.Module):
    """Generalised-mean pooling with exponent 3 (Radenovic et al., arXiv:1711.02512), (B, C, h, w) -> (B, C).

    It lies between the average and the maximum, so a lesion of a few cells is not averaged away. Negative
    features count as zero.
    """

    floor = 1e-6

    def forward(self, features: Tensor) -> Activations:
        # Cubes of bfloat16 features lose too much.
        cubes = features.float().clamp(min=self.floor) ** 3
        return cubes, cubes.mean((2, 3)).pow(1 / 3)

    def evidence(self, features: Tensor, activations: Activations, upstream: Tensor) -> Tensor:  # noqa: ARG002
        """The map (B, 1, h, w), given the gradient with respect to the output, (B, C).

        The gradient with respect to a feature A is (A / g)^2 / hw, so A times it is A^3 / g^2 / hw.
        """
        cubes, pooled = activations
        return _weighted_sum(cubes, upstream / (pooled * pooled))


class WideLayers(nn.Module):
    """VGG's two 4096-wide layers, (B, 512, h, w) -> (B, 4096), from timm's convolutional form of them.

    They take 7 x 7 cells, those of a 224-pixel image. Other maps are averaged to that many first, where a map
    with fewer cells repeats them (adaptive average pooling, as timm and torchvision do). They are held as
    matrices because OpenVINO 2026.4 computes a transposed convolution wrongly where a convolution uses the same
    weights. Dropout acts behind the first ReLU while training; the gradient leaves it out.
    """

    def __init__(self, layers: ConvMlp, dropout: float) -> None:
        super().__init__()
        first: Any = layers.fc1
        self.cells: tuple[int, int] = first.kernel_size
        self.first, self.second = _as_linear(first), _as_linear(layers.fc2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Activations:
        """Return the activations of both layers, (B, 4096) each."""
        if features.shape[2:] != self.cells:
            rows, columns = self._averaging(features)
            features = torch.matmul(torch.matmul(rows, features), columns.T)
        first = functional.relu(self.first(features.flatten(1)))
        return first, functional.relu(self.second(self.dropout(first)))

    def evidence(self, features: Tensor, activations: Activations, upstream: Tensor) -> Tensor:
        """The map (B, 1, h, w), given the gradient with respect to the output, (B, 4096)."""
        first, second = activations
        inner = torch.matmul(torch.where(second > 0, upstream, 0.0), self.second.weight)
        gradient = torch.matmul(torch.where(first > 0, inner, 0.0), self.first.weight)
        gradient = gradient.reshape(-1, features.shape[1], *self.cells)
        if features.shape[2:] != self.cells:
            rows, columns = self._averaging(features)
            gradient = torch.matmul(torch.matmul(rows.T, gradient), columns)
        return (features * gradient).sum(1, keepdim=True)

    def _averaging(self, features: Tensor) -> list[Tensor]:
        """What averages the rows and the columns of a map to as many as the layers take, (7, h) and (7, w)."""
        return [
            _adaptive(size, cells).to(features) for size, cells in zip(features.shape[2:], self.cells, strict=True)
        ]


def _adaptive(size: int, cells: int) -> Tensor:
    """Adaptive average pooling of `size` values to `cells` as a matrix (cells, size): its rows are the averages.

    Cell i averages the values from floor(i size / cells) to ceil((i + 1) size / cells), as torch does.
    """
    matrix = torch.zeros(cells, size)
    for i in range(cells):
        first, last = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def _weighted_sum(cells: Tensor, weights: Tensor) -> Tensor:
    """Sum over the channels of `cells` (B, C, h, w) by `weights` (B, C), over hw: (B, 1, h, w)."""
    rows, columns = cells.shape[2:]
    sums = torch.matmul(weights[:, None] / (rows * columns), cells.flatten(2))
    return sums.reshape(-1, 1, rows, columns)


def _as_linear(convolution: Any) -> nn.Linear:
    """A convolution that covers its whole input, as the linear layer it is."""
    weight = convolution.weight.detach().flatten(1)
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), convolution.bias
    return linear


POOLING: dict[str, type[Average] | type[GeneralisedMean]] = {"avg": Average, "gem": GeneralisedMean}
