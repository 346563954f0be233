"""Rates follow their schedules, and what is frozen stays as it is."""

import numpy as np
import pytest
import torch

from mskscreen.errors import ProtocolError
from mskscreen.networks import build_network
from mskscreen.training.optimise import average, begin_epoch, build_optimiser, rate, set_rate
from mskscreen.training.protocol import Protocol

NETWORK = "timm:test_resnet"


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network(NETWORK)


@pytest.mark.parametrize("warmup", [0.1, 0.3])
def test_one_cycle_is_that_of_torch(warmup):
    protocol = Protocol(rate=0.02, warmup=warmup)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, total_steps=50, pct_start=warmup)
    for step in range(50):
        assert rate(protocol, step, 50, []) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-6)
        optimiser.step()
        if step < 49:
            schedule.step()


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_the_plateau_is_that_of_torch(patience):
    protocol = Protocol(schedule="plateau", rate=0.1, plateau_patience=patience, plateau_factor=0.5)
    losses = np.random.default_rng(patience).random(30).round(1).tolist()
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=patience - 1, threshold=0, eps=0
    )
    for epoch in range(30):
        assert rate(protocol, 0, 1, losses[:epoch]) == pytest.approx(optimiser.param_groups[0]["lr"])
        schedule.step(losses[epoch])


def test_the_cosine_rises_to_the_rate_and_falls_to_nothing():
    protocol = Protocol(schedule="cosine", rate=0.1, warmup=0.2)
    rates = [rate(protocol, step, 100, []) for step in range(100)]
    assert rates[:20] == pytest.approx([0.1 * (step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.05)
    assert 0 < rates[-1] < 1e-4
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_every_parameter_has_one_group_and_norms_do_not_decay(network):
    protocol = Protocol(heads=3, decay=0.1)
    optimiser = build_optimiser(protocol, network, torch.nn.Module())
    set_rate(optimiser, 0.01)
    groups = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    assert len(groups) == sum(len(group["params"]) for group in optimiser.param_groups)
    assert groups.keys() == {id(parameter) for parameter in network.parameters()}
    for name, parameter in network.named_parameters():
        assert groups[id(parameter)]["lr"] == pytest.approx(0.01 if name.startswith("backbone.") else 0.03)
        assert groups[id(parameter)]["weight_decay"] == (0.1 if parameter.ndim > 1 else 0)


def test_a_frozen_module_keeps_weights_and_statistics_until_it_is_freed(network):
    protocol = Protocol(architecture=NETWORK, freeze="backbone.layer1(1)|stem")
    optimiser = build_optimiser(protocol, network, torch.nn.Module())
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def changed():
        network(torch.rand(4, 1, 32, 32))[0].square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}

    begin_epoch(protocol, network, 0)
    first = changed()
    assert "abnormality.weight" in first
    assert not {name for name in first if name.startswith(("backbone.layer1.", "stem."))}
    begin_epoch(protocol, network, 1)
    second = changed()
    assert {name for name in second if name.startswith("backbone.layer1.") and "running_mean" in name}
    assert {name for name in second if name.startswith("backbone.layer1.") and "weight" in name}
    assert "stem.weight" not in second


def test_freezing_what_is_not_there_or_everything_is_an_error(network):
    with pytest.raises(ProtocolError, match=r"no module 'backbone.layr1'; the nearest is 'backbone.layer1'"):
        begin_epoch(Protocol(architecture=NETWORK, freeze="backbone.layr1"), network, 0)
    everything = "|".join(name for name, _ in network.named_children())
    with pytest.raises(ProtocolError, match="leaves nothing to learn"):
        begin_epoch(Protocol(architecture=NETWORK, freeze=everything), network, 0)


def test_the_average_follows_slowly_and_counters_exactly():
    kept, moving = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    with torch.no_grad():
        moving.weight.fill_(2)
        moving.num_batches_tracked.fill_(7)
    average(kept, moving, 0.9, step=10_000)
    assert kept.weight.tolist() == pytest.approx([1.1, 1.1])
    assert int(kept.num_batches_tracked) == 7
    average(kept, moving, 0.9, step=0)
    assert kept.weight.tolist() == pytest.approx([1.91, 1.91])
