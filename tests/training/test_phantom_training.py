"""The demonstration model's training: randomisation, losses, a run that is killed, and the pointing game."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mskscreen.errors import DataError, ProtocolError
from mskscreen.evaluation.phantoms import phantom_figures
from mskscreen.networks import build_network
from mskscreen.phantom.dataset import make
from mskscreen.phantom.manifest import read_manifest
from mskscreen.phantom.plan import Recipe
from mskscreen.pixels import Preprocessing
from mskscreen.predictions import Prediction, Predictions
from mskscreen.saliency.measures import pointing_game
from mskscreen.training.loop import Phase, Schedule, _batch, _set_rate, draw_back, fit, predict, settle
from mskscreen.training.phantoms import PhantomArrays, load_arrays
from mskscreen.training.randomise import randomise
from mskscreen.training.supervision import Targets, Weights, energy_loss, screening_loss


def toy_arrays(count=24, size=64):
    """Noise, with a bright square wherever an image is abnormal."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 80, (count, size, size), dtype=np.uint8)
    masks = np.zeros_like(images)
    abnormal = np.arange(count) % 2
    for index in np.flatnonzero(abnormal):
        top, left = rng.integers(8, size - 24, 2)
        masks[index, top : top + 16, left : left + 16] = 255
    images[masks > 0] = 250
    return PhantomArrays(images, masks, abnormal, np.arange(count) % 7, np.full(count, -1), [None] * count)


def toy_network():
    torch.manual_seed(0)
    return build_network("timm:resnet10t(pool=gem)")


def test_randomisation_repeats_and_keeps_the_range():
    arrays = toy_arrays()
    images, masks = (torch.from_numpy(x).float()[:, None] / 255 for x in (arrays.images, arrays.masks))
    once, again, other = (randomise(images, masks, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], other[0])
    assert once[0].min() >= 0
    assert once[0].max() <= 1


def test_the_mask_moves_with_the_image(monkeypatch):
    monkeypatch.setattr("mskscreen.training.randomise._CHANGES", ())
    arrays = toy_arrays()
    masks = torch.from_numpy(arrays.masks).float()[:, None] / 255
    images, moved = randomise(masks.clone(), masks.clone(), torch.Generator().manual_seed(3))
    assert torch.equal(images, moved)
    assert not torch.equal(moved, masks)


def test_views_that_are_not_worn_keep_their_fine_detail():
    flat = torch.full((64, 1, 96, 96), 0.5)

    def grain(worn):
        views, _ = randomise(flat.clone(), flat, torch.Generator().manual_seed(1), worn=worn)
        inner = views[..., 40:56, 40:56]
        return (inner[..., 1:] - inner[..., :-1]).diff().abs().amax((1, 2, 3))

    assert grain(0.0).median() < 1e-3
    assert (grain(0.0) < 1e-3).float().mean() > 0.9 > (grain(1.0) < 1e-3).float().mean()


def test_a_close_up_holds_its_point_at_the_resolution_of_the_image(monkeypatch):
    monkeypatch.setattr("mskscreen.training.randomise._CHANGES", ())
    images = torch.zeros(400, 1, 100, 100)
    images[:, :, 70:76, 20:26] = 1
    focus = torch.tensor([[0.46 - 1, 1.46 - 1]]).expand(400, 2)
    views, masks = randomise(images, images.clone(), torch.Generator().manual_seed(3), 60, focus)
    assert views.shape == (400, 1, 60, 60)
    assert torch.equal(views, masks)
    areas = views.sum((1, 2, 3))
    assert areas.min() > 36 / 2, "the point left the view"
    assert areas.median() == pytest.approx(36, rel=0.15), "the marked square is as large as in the image"
    peaks = views.flatten(1).argmax(1)
    assert peaks.unique().numel() > 200, "it lies anywhere"


def test_close_ups_of_abnormal_images_show_the_abnormality():
    arrays = toy_arrays(64)
    arrays = dataclasses.replace(arrays, twins=np.where(arrays.abnormal, np.arange(64) - 1, -1))
    schedule = Schedule((Phase(9, 40, close=1.0),), batch=32)
    for step in range(4):
        batch, targets = _batch(arrays, schedule, step)
        assert batch.shape == (32, 1, 40, 40)
        shown = targets.mask.amax((1, 2, 3)) > 0.5
        assert torch.equal(shown, targets.abnormal > 0)


def test_evidence_inside_the_mask_costs_less_than_outside():
    truth = torch.zeros(2, 1, 4, 4)
    truth[0, 0, :2, :2] = 1
    inside = torch.full((2, 1, 4, 4), -1.0)
    inside[..., 0, 0] = 1
    outside = torch.full((2, 1, 4, 4), -1.0)
    outside[..., 3, 3] = 1
    outside.requires_grad_()
    loss = energy_loss(outside, truth)
    assert energy_loss(inside, truth) == pytest.approx(0, abs=1e-4)
    assert loss > 5
    assert energy_loss(outside, torch.zeros_like(truth)) == 0
    loss.backward()
    assert outside.grad[0, 0, 0, 0] < 0, "evidence below zero inside the mask must be able to rise"


def test_every_part_of_the_loss_reaches_the_backbone():
    arrays = toy_arrays(8, 160)
    network = toy_network()
    with torch.no_grad():
        # Some evidence for abnormal, without which the share of it inside the mask says nothing.
        network.shared.weight.abs_()
        network.abnormality.weight.copy_(torch.tensor([[-0.1], [0.1]]).expand(2, 100))
    images, masks = (torch.from_numpy(x).float()[:, None] / 255 for x in (arrays.images, arrays.masks))
    targets = Targets(torch.from_numpy(arrays.abnormal), torch.from_numpy(arrays.joint), masks)
    for part in dataclasses.fields(Weights):
        alone = Weights(**{field.name: float(field is part) for field in dataclasses.fields(Weights)})
        network.zero_grad()
        screening_loss(network, images, targets, alone).backward()
        assert network.stem.weight.grad.abs().max() > 0, part.name


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_killed_run_goes_on_to_the_same_weights(precision, tmp_path):
    class KilledError(Exception):
        pass

    def kill(step, *_):
        if step == 5:
            raise KilledError

    arrays = toy_arrays()
    phases = (Phase(4, 48), Phase(2, 64))
    schedule = Schedule(phases, ("backbone.conv1",), batch=8, rate=1e-3, keep=3, precision=precision)
    whole = fit(toy_network(), arrays, schedule, tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(toy_network(), arrays, schedule, tmp_path / "killed", kill)
    resumed = fit(toy_network(), arrays, schedule, tmp_path / "killed")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert predict(whole, arrays.images)[0].shape == (24, 2)
    for other, loss in ((dataclasses.replace(schedule, phases=phases[:1]), None), (schedule, Weights(joint=1.0))):
        with pytest.raises(ProtocolError, match=r"state\.pt: is of another run"):
            fit(toy_network(), arrays, other, tmp_path / "whole", weights=loss)


def test_the_precision_is_that_of_the_schedule(tmp_path):
    found = [
        fit(
            toy_network(),
            toy_arrays(),
            Schedule((Phase(2, 48),), batch=8, precision=precision),
            tmp_path / precision,
        )
        for precision in ("f32", "bf16")
    ]
    moved = [network.stem.weight.detach() for network in found]
    assert not torch.equal(*moved)
    torch.testing.assert_close(*moved, rtol=0, atol=2 * 2 * 3 * 4e-4)  # two steps of either by the rate of heads


def test_frozen_modules_keep_their_weights_and_statistics(tmp_path):
    network = toy_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    schedule = Schedule((Phase(2, 64),), ("backbone.conv1",), batch=8, rate=1e-2)
    after = fit(network, toy_arrays(), schedule, tmp_path).state_dict()
    changed = {name.startswith("backbone.conv1") for name in before if not torch.equal(before[name], after[name])}
    assert changed == {False}


def test_a_twin_is_shown_through_the_same_changes_as_its_image():
    toy = toy_arrays(16)
    marked = np.flatnonzero(toy.abnormal)
    # The same pixels twice: whatever differs in the batch is a change that one of the two did not get.
    images, masks = (np.concatenate([values, values[marked]]) for values in (toy.images, toy.masks))
    abnormal, joint = np.concatenate([toy.abnormal, 0 * marked]), np.concatenate([toy.joint, toy.joint[marked]])
    twins = np.full(len(images), -1)
    twins[marked] = 16 + np.arange(len(marked))
    arrays = PhantomArrays(images, masks, abnormal, joint, twins, [None] * len(images))
    schedule = Schedule((Phase(9, 48, close=0.6),), batch=9)
    batch, targets = _batch(arrays, schedule, 3)
    assert targets.abnormal.tolist() == [1] * 3 + [0] * 6
    assert torch.equal(batch[:3], batch[3:6])
    assert not torch.equal(batch[:3], _batch(arrays, schedule, 4)[0][:3])


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    network = toy_network()
    with torch.no_grad():
        network.shared.bias.fill_(float("nan"))
    with pytest.raises(ProtocolError, match="not finite at step 0"):
        fit(network, toy_arrays(), Schedule((Phase(1, 64),), batch=8), tmp_path)


@pytest.mark.parametrize("keep", [1, 100])
def test_a_weight_that_is_not_finite_is_neither_kept_nor_returned(keep, tmp_path):
    schedule = Schedule((Phase(1, 48),), batch=8, rate=1e30, decay=1e10, keep=keep)
    with pytest.raises(ProtocolError, match=r"the tensor .* is not finite at step 1; lower the learning rate"):
        fit(toy_network(), toy_arrays(), schedule, tmp_path)
    assert not list(tmp_path.iterdir())


def test_arrays_hold_what_can_be_seen_of_a_phantom_set(tmp_path):
    make(tmp_path, Recipe(studies=7, seed=4, long_side=96))
    rows = read_manifest(tmp_path)
    preprocessing = Preprocessing.parse("decode|grayscale|window(auto)|letterbox(64,64,bilinear,antialias)|unit")
    arrays = load_arrays(tmp_path, preprocessing)
    assert [row.image for row in arrays.rows] == [row.image for row in rows if not row.occult]
    assert [bool(mask.any()) for mask in arrays.masks] == [row.mask is not None for row in arrays.rows]
    stored = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    again = load_arrays(tmp_path, preprocessing)
    assert np.array_equal(again.images, arrays.images)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == stored


def test_figures_follow_from_truth_and_predictions(tmp_path):
    make(tmp_path, Recipe(studies=28, seed=4, long_side=96))
    rows = read_manifest(tmp_path)

    def table(score):
        def image(row):
            p = score(row)
            return Prediction(
                str(Path("elsewhere") / row.image),
                row.study.replace("_positive", "").replace("_negative", ""),
                row.joint,
                tuple(float(name == row.joint) for name in JOINTS),
                p,
                p > 0.5,
            )

        return Predictions(tuple(map(image, rows)))

    JOINTS = ("humerus", "wrist", "forearm", "finger", "hand", "elbow", "shoulder")  # noqa: N806
    perfect = phantom_figures(rows, table(lambda row: float(row.label)))
    assert perfect["studies"] == 28
    assert perfect["joint_accuracy"] == perfect["abnormality_auroc"] == 1
    assert perfect["calibration_error"] == 0
    assert not any(name.startswith("auroc_") for name in perfect), "kinds of fewer than 20 studies"
    wrong = phantom_figures(rows, table(lambda row: 1 - float(row.label)))
    assert wrong["abnormality_auroc"] == 0
    assert json.loads(json.dumps(wrong)) == wrong
    with pytest.raises(DataError, match="no study of the predictions"):
        phantom_figures(rows, Predictions(()))


def test_a_peak_counts_inside_the_mask_and_just_beside_it():
    mask = np.zeros((200, 200), bool)
    mask[100:110, 100:110] = True
    maps = [np.zeros((200, 200)) for _ in range(3)]
    for evidence, at in zip(maps, ((105, 105), (95, 105), (80, 105)), strict=True):
        evidence[at] = 1
    assert pointing_game(maps, [mask] * 3).tolist() == [True, True, False]


def test_the_rate_rises_then_falls_to_the_share_that_is_asked_for():
    optimiser = torch.optim.SGD([{"params": [torch.zeros(1)], "factor": 3.0}], lr=1.0)
    schedule = Schedule((Phase(60, 32), Phase(40, 48)), rate=0.2, warmup=0.1, last=0.25)
    rates = []
    for step in range(100):
        _set_rate(optimiser, schedule, step)
        rates.append(optimiser.param_groups[0]["lr"] / 3)
    assert np.argmax(rates) in (9, 10)
    assert max(rates) == pytest.approx(0.2)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[-1] == pytest.approx(0.05, rel=0.05)


def test_a_network_drawn_back_lies_between_what_went_in_and_what_was_trained(tmp_path):
    before, network = toy_network(), toy_network()
    trained = fit(network, toy_arrays(), Schedule((Phase(2, 64),), batch=8), tmp_path)
    drawn = copy.deepcopy(trained)
    draw_back(drawn, before, 0.25)
    first, last, mixed = (each.state_dict()["shared.weight"] for each in (before, trained, drawn))
    assert not torch.equal(last, first)
    torch.testing.assert_close(mixed, 0.75 * first + 0.25 * last)


def test_settled_statistics_are_those_of_whole_undisturbed_images():
    network, arrays = toy_network(), toy_arrays(48)
    layer = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    momentum, seen = layer.momentum, []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    settle(network, arrays, ("stem",))
    handle.remove()
    assert not network.training
    assert layer.momentum == momentum
    torch.testing.assert_close(layer.running_mean, torch.cat(seen).mean((0, 2, 3)))
    assert len(torch.cat(seen)) == 48
