"""What an epoch shows follows from seed and epoch."""

import numpy as np
import pytest

from mskscreen.errors import ProtocolError
from mskscreen.training.sampling import RadiographSampler

LABELS = np.array([0] * 900 + [1] * 90 + [-1] * 10)
JOINTS = np.arange(1000) % 50 // 7 - 1  # a joint for every row but some; unequal shares


def draws(*args, epoch=0, **kwargs):
    sampler = RadiographSampler(LABELS, JOINTS, *args, **kwargs)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_natural_shows_every_image_once():
    assert sorted(draw.row for draw in draws()) == list(range(1000))


def test_epochs_and_seeds_differ_and_repeat():
    assert draws(seed=1, epoch=3) == draws(seed=1, epoch=3)
    assert draws(seed=1, epoch=3) != draws(seed=1, epoch=4)
    assert draws(seed=1, epoch=3) != draws(seed=2, epoch=3)
    assert len({draw.seed for draw in draws()}) == 1000


def test_class_balanced_draws_both_labels_equally_and_no_unknown():
    labels = LABELS[[draw.row for draw in draws("class")]]
    assert set(labels) == {0, 1}
    assert labels.mean() == pytest.approx(0.5, abs=0.06)


def test_joint_balanced_draws_every_joint_equally_and_no_unknown():
    joints = JOINTS[[draw.row for draw in draws("joint")]]
    shares = np.bincount(joints) / len(joints)
    known = len(set(JOINTS) - {-1})
    assert (joints >= 0).all()
    assert shares == pytest.approx(np.full(known, 1 / known), abs=0.05)


@pytest.mark.parametrize("sampling", ["natural", "class", "joint"])
def test_ranks_share_an_epoch_without_overlap(sampling):
    whole = draws(sampling, seed=5)
    parts = [draws(sampling, seed=5, rank=rank, ranks=3) for rank in range(3)]
    assert [len(part) for part in parts] == [333] * 3
    assert [draw for row in zip(*parts, strict=True) for draw in row] == whole[:999]


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ProtocolError, match="balance"):
        RadiographSampler(np.full(5, -1), np.zeros(5, int), "class")
    with pytest.raises(ProtocolError, match="cannot be shared"):
        RadiographSampler(np.zeros(2, int), np.zeros(2, int), ranks=3)
