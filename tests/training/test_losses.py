"""Losses are the formulas of their papers, and what is unknown or not learned costs nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mskscreen.training.losses import ScreeningLoss, balanced, study_type_weights
from mskscreen.training.protocol import Protocol

LABELS = np.array([0, 1, 0, 0, 1, 0, 1, 0])
JOINTS = np.array([1, 1, 1, 1, 4, 4, 4, 4])


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    pred1, pred2 = (torch.randn(8, width, generator=generator).requires_grad_() for width in (2, 7))
    return pred1, pred2, torch.from_numpy(LABELS), torch.from_numpy(JOINTS)


def loss(protocol, *data):
    return ScreeningLoss(protocol, LABELS, JOINTS)(*data)


def test_the_published_loss_is_the_unweighted_cross_entropy_of_both_tasks():
    pred1, pred2, label, joint = batch()
    expected = functional.cross_entropy(pred1, label), functional.cross_entropy(pred2, joint)
    found = loss(Protocol(abnormality_weight=2, joint_weight=0.5), pred1, pred2, label, joint)
    both = 2 * expected[0] + 0.5 * expected[1]
    assert found.tolist() == pytest.approx([term.item() for term in (both, *expected)])


def test_class_weights_are_those_of_the_mura_paper():
    pred1, pred2, label, joint = batch()
    weights = study_type_weights(LABELS, JOINTS)
    assert weights[1].tolist() == [0.25, 0.75]
    assert weights[4].tolist() == [0.5, 0.5]
    assert weights[7].tolist() == [0.375, 0.625]
    assert weights[0].tolist() == [1, 1]
    p = pred1.softmax(1)[:, 1].detach().numpy()
    by_hand = [
        -(abnormal * y * np.log(q) + normal * (1 - y) * np.log(1 - q))
        for y, q, (normal, abnormal) in zip(LABELS, p, weights[JOINTS], strict=True)
    ]
    found = loss(Protocol(loss="weighted", tasks="abnormality"), pred1, pred2, label, joint)
    assert found[0].item() == pytest.approx(np.mean(by_hand), rel=1e-5)
    unknown = loss(Protocol(loss="weighted", tasks="abnormality"), pred1, pred2, label, torch.full_like(joint, -1))
    overall = functional.cross_entropy(pred1, label, torch.tensor([0.375, 0.625]), reduction="none").mean()
    assert unknown[0].item() == pytest.approx(overall.item(), rel=1e-5)


def test_balanced_joint_types_weigh_the_same_together():
    joints = np.array([0, 0, 0, 2, -1])
    weights = balanced(joints)
    assert weights[0] * 3 == pytest.approx(weights[2])
    assert np.mean(weights[joints[:4]]) == pytest.approx(1)


def test_focal_loss_without_its_exponent_is_cross_entropy_and_forgives_what_is_right():
    pred1, pred2, label, joint = batch()
    plain = loss(Protocol(), pred1, pred2, label, joint)
    assert torch.allclose(loss(Protocol(loss="focal", focal_gamma=0), pred1, pred2, label, joint), plain)
    sure = torch.nn.functional.one_hot(label, 2) * 8.0
    ratio = [
        loss(Protocol(loss=name, tasks="abnormality"), sure, pred2, label, joint)[0].item()
        for name in ("focal", "cross-entropy")
    ]
    assert 0 < ratio[0] < ratio[1] / 1000


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_loss_has_a_slope_where_an_image_is_certain(gamma):
    data = batch()
    certain = (functional.one_hot(data[2], 2) * 60.0).requires_grad_()
    found = loss(Protocol(loss="focal", focal_gamma=gamma, tasks="abnormality"), certain, *data[1:])
    found[0].backward()
    assert certain.grad.isfinite().all()


def test_label_smoothing_is_that_of_torch():
    pred1, pred2, label, joint = batch()
    found = loss(Protocol(label_smoothing=0.2), pred1, pred2, label, joint)
    assert found[1].item() == pytest.approx(functional.cross_entropy(pred1, label, label_smoothing=0.2).item())


@pytest.mark.parametrize("name", ["cross-entropy", "weighted", "focal"])
def test_what_is_unknown_costs_nothing(name):
    pred1, pred2, label, joint = batch()
    protocol = Protocol(loss=name)
    hidden = label.clone()
    hidden[4:] = -1
    found = loss(protocol, pred1, pred2, hidden, joint)
    assert found[1].item() == pytest.approx(loss(protocol, pred1[:4], pred2[:4], label[:4], joint[:4])[1].item())
    nothing = loss(protocol, pred1, pred2, torch.full_like(label, -1), torch.full_like(joint, -1))
    nothing[0].backward()
    assert nothing.tolist() == [0, 0, 0]
    assert not pred1.grad.any()


@pytest.mark.parametrize(("tasks", "learned"), [("abnormality", 0), ("joint", 1), ("both", 2)])
def test_only_the_tasks_named_are_learned(tasks, learned):
    data = batch()
    loss(Protocol(tasks=tasks), *data)[0].backward()
    touched = [scores.grad is not None and bool(scores.grad.any()) for scores in data[:2]]
    assert touched == [learned != 1, learned != 0]


def test_uncertainty_weighting_rests_where_its_formula_does():
    data = batch()
    module = ScreeningLoss(Protocol(task_weights="uncertainty"), LABELS, JOINTS)
    first = module(*data)
    assert first[0].item() == pytest.approx((first[1] + first[2]).item())
    with torch.no_grad():
        module.log_variances.copy_(torch.log(2 * first[1:]))
    module(*data)[0].backward()
    assert module.log_variances.grad.abs().max() < 1e-6
