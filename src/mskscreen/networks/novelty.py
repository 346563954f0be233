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

    def __init__(self, mean: Tensor, components: Tensor, variances: Tensor, noise: Tensor) -> None:
        super().__init__()
        for name, value in {
            "mean": mean,
            "components": components,
            "variances": variances,
            "noise": noise,
        }.items():
            self.register_buffer(name, value.detach().float())

    def forward(self, features: Tensor) -> Tensor:
        centred = features.float() - self.mean
        scores = functional.linear(centred, self.components)
        residual = centred - torch.matmul(scores, self.components)
        squared = (scores * scores / self.variances).sum(1) + (residual * residual).sum(1) / self.noise
        return squared.sqrt()
