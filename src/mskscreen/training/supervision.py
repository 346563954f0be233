"""The losses of a screening network: both tasks, and the map where the truth is known to the pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mskscreen.networks import ScreeningNetwork


@dataclass(frozen=True)
class Targets:
    """What is known of a batch: `abnormal` (B,) and `joint` (B,) class indices, `mask` (B, 1, H, W) in [0, 1].

    A mask is all zero where the image is normal.
    """

    abnormal: Tensor
    joint: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of the loss."""

    abnormality: float = 1.0
    joint: float = 0.5
    cells: float = 1.0
    energy: float = 0.2


def screening_loss(network: ScreeningNetwork, images: Tensor, targets: Targets, weights: Weights) -> Tensor:
    """Loss of a batch of images (B, 1, H, W) in [0, 1].

    The unweighted categorical cross-entropy of both tasks, as the release trained; and two that teach the
    network where to look: the abnormality heads applied to every cell of the last feature map against the
    mask, and the share of the map's positive evidence that lies outside it.
    """
    features = network.features(images)
    pred1, pred2, evidence = network.read_out(features)[:3]
    truth = functional.adaptive_max_pool2d(targets.mask, features.shape[2:])
    return (
        weights.abnormality * functional.cross_entropy(pred1.float(), targets.abnormal)
        + weights.joint * functional.cross_entropy(pred2.float(), targets.joint)
        + weights.cells * cell_loss(network, features, truth)
        + weights.energy * energy_loss(evidence.float(), truth)
    )


def cell_loss(network: ScreeningNetwork, features: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy of the abnormality heads on every cell, features (B, d, h, w), truth (B, 1, h, w).

    Cells inside and outside the masks weigh the same in a batch, few as the former are.
    """
    cells = features.permute(0, 2, 3, 1)
    scores = network.abnormality(functional.relu(network.shared(cells))).float()
    logits = (scores[..., 1] - scores[..., 0])[:, None]
    inside = (truth > 0.5).float()
    losses = functional.binary_cross_entropy_with_logits(logits, inside, reduction="none")
    outside = 1 - inside
    return 0.5 * (
        (losses * inside).sum() / inside.sum().clamp(min=1) + (losses * outside).sum() / outside.sum().clamp(min=1)
    )


def energy_loss(evidence: Tensor, truth: Tensor) -> Tensor:
    """Mean of -log of the share of positive evidence that lies in the mask, over images that have one.

    The energy-based pointing game of Wang et al. (Score-CAM, arXiv:1910.01279) as a loss; both (B, 1, h, w).
    """
    inside = (truth > 0.5).float()
    marked = inside.sum((1, 2, 3)) > 0
    if not marked.any():
        return evidence.sum() * 0
    # As if every cell alone gave the score; a soft clamp, since evidence below zero must be able to rise.
    positive = functional.softplus(evidence * inside[0].numel())
    share = (positive * inside).sum((1, 2, 3)) / positive.sum((1, 2, 3))
    return -torch.log(share[marked]).mean()
