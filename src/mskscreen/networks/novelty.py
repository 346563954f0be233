"""How far the pooled features of an image lie from those of the training data."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class NoveltyDistance(nn.Module):
    """Mahalanobis distance under probabilistic principal components (Tipping & Bishop, 1999), (B, d) -> (B,).

    The covariance is V diag(variances) V^T along the k components and `noise` in every other direction:
    what scikit-learn's `PCA` calls `mean_`, `components_` (k, d), `explained_variance_` and
    `noise_variance_`. It needs k x d numbers where the full covariance needs d x d.
    """

    mean: Tensor
    components: Tensor
    variances: Tensor
    noise: Tensor

    def __init__(self, mean: Tensor, components: Tensor, variances: Tensor, noise: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().float())
        self.register_buffer("components", components.detach().float())
        self.register_buffer("variances", variances.detach().float())
        self.register_buffer("noise", torch.tensor(noise, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        centred = features.float() - self.mean
        scores = functional.linear(centred, self.components)
        residual = centred - torch.matmul(scores, self.components)
        squared = (scores * scores / self.variances).sum(1) + (residual * residual).sum(1) / self.noise
        return squared.sqrt()
