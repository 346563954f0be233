"""Networks with random weights that behave like trained ones: their activations neither die nor explode."""

import torch
from torch import nn

from mskscreen.contract import ModelContract
from mskscreen.networks import build_network

LITE = "timm:tf_efficientnet_lite0(pool=gem,stride=16)"
MERGED = "timm:tf_efficientnet_lite0(pool=gem,merge=16)"
MIRRORED = "timm:tf_efficientnet_lite0(pool=gem,merge=16,mirror=yes)"
# As small as each graph allows; one VGG as large as its wide layers take it without averaging.
SIZES = {
    "inception_v3": 139,
    "xception": 96,
    "densenet121": 64,
    "resnet18": 64,
    "vgg16_bn": 224,
    "vgg19_bn": 64,
    LITE: 96,
    MERGED: 96,
    MIRRORED: 96,
}


def contract_of(architecture, **fields):
    """The contract of such a network, at its size in SIZES."""
    size = SIZES[architecture]
    return ModelContract(
        name="random",
        architecture=architecture,
        preprocessing=f"decode|grayscale|window(auto)|resize({size},{size},bilinear,antialias)|unit",
        input_size=(size, size),
        **fields,
    )


def calibrated(architecture, **options):
    """Random weights, batch norms set to the statistics of two images, in eval mode."""
    torch.manual_seed(0)
    network = build_network(architecture, **options)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        with torch.no_grad():
            # timm starts the last norm of each residual branch at zero, which would hide the branch.
            norm.weight[norm.weight == 0] = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, 1, SIZES[architecture], SIZES[architecture]))
    return network.eval()
