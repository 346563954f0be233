"""The losses of a protocol: one of each task, and how they become one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mskscreen.anatomy import ABNORMALITY_LABELS, JOINT_LABELS
from mskscreen.contract import TASKS
from mskscreen.training.loader import UNKNOWN
from mskscreen.training.protocol import Protocol


class ScreeningLoss(nn.Module):
    """Loss of a batch from `pred1` (B, 2), `pred2` (B, 7), labels (B,) and joints (B,), -1 where unknown.

    Returns (3,): the loss to descend, then the mean loss of abnormality and of joint before any weight between
    them; 0 for a task that is not learned or of which the batch knows nothing. The means are over the images whose
    truth is known: as many as `known` (2,) says where the batch is one pass of a step, else those of the batch.
    The weights of classes come from `labels` and `joints` (n,) of the training images.

    With uncertainty weighting (Kendall et al., arXiv:1705.07115) each task has a log variance s that is learned:
    the loss is exp(-s) L + s / 2.
    """

    abnormality_weights: Tensor
    joint_weights: Tensor

    def __init__(self, protocol: Protocol, labels: np.ndarray, joints: np.ndarray) -> None:
        super().__init__()
        self.protocol = protocol
        self.tasks = learned(protocol)
        weighted = protocol.loss == "weighted"
        ones = np.ones((len(JOINT_LABELS) + 1, len(ABNORMALITY_LABELS)))
        self.register_buffer(
            "abnormality_weights", _float(study_type_weights(labels, joints) if weighted else ones)
        )
        self.register_buffer("joint_weights", _float(balanced(joints) if weighted else np.ones(len(JOINT_LABELS))))
        uncertain = protocol.task_weights == "uncertainty"
        self.log_variances = nn.Parameter(torch.zeros(2)) if uncertain else None

    def forward(
        self, pred1: Tensor, pred2: Tensor, label: Tensor, joint: Tensor, known: Tensor | None = None
    ) -> Tensor:
        if known is None:
            known = torch.stack([(truth != UNKNOWN).sum().clamp(min=1) for truth in (label, joint)])
        # An unknown joint (-1) takes the last row, which is of all joints.
        weights = self.abnormality_weights[joint, label.clamp(min=0)]
        losses = {
            "abnormality": lambda: self._task(pred1, label, weights) / known[0],
            "joint": lambda: self._task(pred2, joint, self.joint_weights[joint.clamp(min=0)]) / known[1],
        }
        factors = {"abnormality": self.protocol.abnormality_weight, "joint": self.protocol.joint_weight}
        zero = pred1.new_zeros((), dtype=torch.float32)
        parts = [losses[task]() if task in self.tasks else zero for task in losses]
        total = zero
        for number, task in enumerate(losses):
            if task in self.tasks:
                loss = factors[task] * parts[number]
                if self.log_variances is not None:
                    log_variance = self.log_variances[number]
                    loss = torch.exp(-log_variance) * loss + log_variance / 2
                total = total + loss
        return torch.stack([total, *(part.detach() for part in parts)])

    def _task(self, scores: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
        """Sum over the images whose truth is known."""
        target = truth.clamp(min=0)
        scores = scores.float()
        losses = functional.cross_entropy(
            scores, target, reduction="none", label_smoothing=self.protocol.label_smoothing
        )
        if self.protocol.loss == "focal":
            # Lin et al., arXiv:1708.02002: what is right already counts little.
            sure = scores.softmax(1).gather(1, target[:, None])[:, 0]
            # Below an exponent of 1 the slope at 0 is infinite.
            unsure = (1 - sure).clamp(min=torch.finfo(sure.dtype).eps)
            losses = losses * unsure**self.protocol.focal_gamma
        return (losses * weights * (truth != UNKNOWN)).sum()


def learned(protocol: Protocol) -> tuple[str, ...]:
    """The tasks of a protocol."""
    return TASKS if protocol.tasks == "both" else (protocol.tasks,)


def study_type_weights(labels: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Weights (8, 2) of normal and abnormal for each joint type, and in the last row for all together.

    Each class weighs the share of the other one in its study type (Rajpurkar et al., arXiv:1712.06957, section
    3: w1 = N / (A + N), w0 = A / (A + N)); 1 where a study type knows one class alone.
    """
    weights = np.ones((len(JOINT_LABELS) + 1, 2))
    for joint in range(len(JOINT_LABELS) + 1):
        here = labels if joint == len(JOINT_LABELS) else labels[joints == joint]
        normal, abnormal = int((here == 0).sum()), int((here == 1).sum())
        if normal and abnormal:
            weights[joint] = np.array([abnormal, normal]) / (normal + abnormal)
    return weights


def balanced(joints: np.ndarray) -> np.ndarray:
    """Weights (7,) of the joint types in inverse proportion to their number, 1 on average over the images.

    Our choice: the MURA paper has no such task.
    """
    counts = np.bincount(joints[joints >= 0], minlength=len(JOINT_LABELS))
    present = counts > 0
    weights = np.ones(len(JOINT_LABELS))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def _float(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
