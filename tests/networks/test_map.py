"""The map that the graph computes is HiResCAM as automatic differentiation gives it."""

import pytest
import torch
from calibrated import LITE, MERGED, MIRRORED, SIZES, calibrated
from timm.models.vgg import ConvMlp

from mskscreen.networks.evidence import Average, GeneralisedMean, WideLayers


def hirescam(network, image):
    """The map by automatic differentiation, and the one that the network returns."""
    features = network.features(image)
    pred1, _, found, *_ = network.read_out(features)
    (gradient,) = torch.autograd.grad((pred1[:, 1] - pred1[:, 0]).sum(), features, retain_graph=True)
    return (features * gradient).sum(1, keepdim=True), found


@pytest.mark.parametrize("architecture", SIZES)
def test_map_is_the_gradient_times_the_features(architecture):
    network = calibrated(architecture)
    expected, found = hirescam(network, torch.rand(2, 1, SIZES[architecture], SIZES[architecture]))
    scale = expected.abs().max()
    assert scale > 1e-4
    assert (found - expected).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("architecture", ["resnet18(pool=gem)", "timm:convnext_atto"])
def test_map_holds_beyond_the_six(architecture, monkeypatch):
    # The features of ConvNeXt are of both signs.
    monkeypatch.setitem(SIZES, architecture, 96)
    network = calibrated(architecture)
    expected, found = hirescam(network, torch.rand(1, 1, SIZES[architecture], SIZES[architecture]))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_mirrored_network_averages_both_sides_once_trained():
    network, plain = calibrated(MIRRORED), calibrated(MERGED)
    image = torch.rand(3, 1, 96, 96)
    with torch.no_grad():
        expected = (plain.features(image) + plain.features(image.flip(3)).flip(3)) / 2
        torch.testing.assert_close(network.features(image), expected, rtol=1e-4, atol=1e-5)
        scores, joints, evidence = network(image)
        torch.testing.assert_close(
            network(image.flip(3)), (scores, joints, evidence.flip(3)), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(network.train().features(image), plain.train().features(image))


def test_map_adds_up_to_the_score_without_biases():
    network = calibrated("resnet18")
    with torch.no_grad():
        network.shared.bias.zero_()
        network.abnormality.bias.zero_()
        pred1, _, found = network(torch.rand(3, 1, 64, 64))
    torch.testing.assert_close(found.sum((1, 2, 3)), pred1[:, 1] - pred1[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["resnet18", LITE])
def test_supervising_the_map_moves_it_onto_the_mask(architecture):
    network = calibrated(architecture, dropout=0.5)
    image = torch.rand(2, 1, 128, 128)
    mask = torch.zeros_like(network(image)[2])
    mask[:, :, 1, 2] = 1
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-4)

    def loss():
        return torch.nn.functional.binary_cross_entropy_with_logits(20 * network(image)[2], mask)

    first = loss().item()
    for _ in range(6):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < 0.8 * first
    for layer in (network.stem, network.shared, network.abnormality):
        assert layer.weight.grad.abs().max() > 0


def test_generalised_mean_keeps_a_small_lesion_that_the_average_loses():
    features = torch.zeros(1, 1, 16, 16)
    features[..., 3, 4] = 1
    assert GeneralisedMean()(features)[-1].item() > 30 * Average()(features)[-1].item()
    flat = torch.full((1, 1, 16, 16), 0.7)
    assert GeneralisedMean()(flat)[-1].item() == pytest.approx(0.7, rel=1e-5)


def wide_layers(channels=3, width=5):
    return WideLayers(ConvMlp(channels, width, kernel_size=7, mlp_ratio=2.0, drop_rate=0.0), 0.0).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (7, 6), (9, 14), (10, 7)])
def test_wide_layers_average_other_maps_to_the_cells_that_they_take(size):
    layers = wide_layers()
    features = torch.randn(2, 3, *size, requires_grad=True)
    activations = layers(features)
    by_torch = layers(torch.nn.functional.adaptive_avg_pool2d(features, 7))
    torch.testing.assert_close(activations[-1], by_torch[-1], rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(activations[-1])
    (gradient,) = torch.autograd.grad(by_torch[-1], features, upstream)
    found = layers.evidence(features, activations, upstream)
    torch.testing.assert_close(found, (features * gradient).sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_wide_layers_take_the_cells_of_the_released_size_as_they_are():
    layers = wide_layers()
    features = torch.randn(2, 3, 7, 7)
    expected = torch.relu(layers.second(torch.relu(layers.first(features.flatten(1)))))
    assert torch.equal(layers(features)[-1], expected)
