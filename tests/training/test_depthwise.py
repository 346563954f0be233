"""Quick gradients of depthwise convolutions in bf16 are the gradients that PyTorch computes in float32."""

from collections import Counter

import pytest
import torch
from torch import nn

from mskscreen.networks import build_network
from mskscreen.training.depthwise import QuickDepthwise

BF16_ROUNDING = 2**-8


def _gradients(layer, images, quick=False, dtype=torch.bfloat16):
    """Of a sum with weights of its own for every number: of images, weight and, where there is one, bias."""
    layer.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        if quick:
            with QuickDepthwise():
                found = layer(images)
        else:
            found = layer(images)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found.float() * weights).sum().backward()
    return found.detach(), images.grad, *(parameter.grad.clone() for parameter in layer.parameters())


@pytest.mark.parametrize("kernel", [3, 5, (7, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_float32(kernel, stride):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, kernel, stride, padding=1, groups=8, bias=False)
    # Numbers that bf16 holds exactly, so that only sums are rounded.
    layer.weight.data = layer.weight.data.bfloat16().float()
    images = torch.randn(3, 8, 17, 20).bfloat16().float()
    quick = _gradients(layer, images, quick=True)
    exact = _gradients(layer, images, dtype=torch.float32)
    for found, expected in zip(quick, exact, strict=True):
        assert (found - expected).abs().max() <= 4 * BF16_ROUNDING * expected.abs().max()
    assert quick[0].dtype == torch.bfloat16


def test_wide_and_strided_gradients_are_summed_in_float32():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, 5, 2, padding=2, groups=4, bias=False)
    layer.weight.data = layer.weight.data.bfloat16().float()
    images = torch.randn(16, 4, 64, 64).bfloat16().float()
    with QuickDepthwise(), torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    gradient = torch.randn(output.shape).bfloat16()
    output.backward(gradient)
    expected = torch.nn.grad.conv2d_weight(images.double(), layer.weight.shape, gradient.double(), 2, 2, groups=4)
    assert torch.equal(layer.weight.grad, expected.float().bfloat16().float())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 5, groups=8),
        nn.Conv2d(8, 8, 5, groups=4, bias=False),
        nn.Conv2d(8, 16, 5, groups=8, bias=False),
        nn.Conv2d(8, 8, 5, groups=8, bias=False, dilation=2),
        nn.Conv2d(8, 8, 5, groups=8, bias=False, padding="same"),
        nn.Conv2d(8, 8, 5, bias=False),
    ],
    ids=["bias", "groups", "multiplied", "dilated", "same", "dense"],
)
def test_other_convolutions_are_as_ever(layer):
    images = torch.randn(2, 8, 16, 16)
    for found, expected in zip(_gradients(layer, images, quick=True), _gradients(layer, images), strict=True):
        assert torch.equal(found, expected)


def test_arguments_may_be_given_by_name():
    images, weight = torch.randn(2, 8, 16, 16), torch.randn(8, 1, 5, 5)
    how = {"stride": (2, 2), "padding": (2, 2), "dilation": (1, 1), "groups": 8}
    with torch.autocast("cpu", torch.bfloat16):
        expected = nn.functional.conv2d(images, weight, **how)
        with QuickDepthwise():
            found = nn.functional.conv2d(input=images, weight=weight.requires_grad_(), **how)
    assert torch.equal(found, expected)
    assert found.grad_fn.name() == "_DepthwiseBackward"


def test_float32_is_as_ever():
    layer = nn.Conv2d(8, 8, 5, 2, groups=8, bias=False)
    images = torch.randn(2, 8, 16, 16)
    quick = _gradients(layer, images, quick=True, dtype=torch.float32)
    for found, expected in zip(quick, _gradients(layer, images, dtype=torch.float32), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("architecture", ["timm:test_efficientnet", "timm:tf_efficientnet_lite0"])
def test_every_depthwise_layer_of_a_network_is_found(architecture):
    network = build_network(architecture).train()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    with QuickDepthwise(), torch.autocast("cpu", torch.bfloat16):
        scores = network(torch.rand(2, 1, 64, 64))[0]
    assert _nodes(scores.grad_fn)["_DepthwiseBackward"] == len(layers) > 0


def _nodes(last):
    """How many nodes of each name the graph behind `last` has."""
    names, seen, left = Counter(), set(), [last]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names[node.name()] += 1
            left += [before for before, _ in node.next_functions]
    return names
