"""Parameters and multiply-adds of the six networks, beside what the release printed.

Counted by torch's own `FlopCounterMode` on the meta device, where tensors have shapes but no memory, and
halved, because it counts a multiply-add as two. It sees convolutions and linear layers only; the products of
the evidence map are left out, as the release has none (0.12 for the VGGs, below 0.001 for the others).

The release used thop, which adds four operations for every output of a batch norm, although a batch norm
folded into its convolution costs nothing. That is the whole difference: thop 0.1.1 on these networks (November
2026) gives 8.443, 2.897, 1.825, 15.522 and 19.689 for Xception, DenseNet-121, ResNet-18 and the two VGGs, within
0.008 of the published figures. For Inception v3 it gives 5.750 where 5.73 was published, which is two
operations for each output instead of four.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from mskscreen.errors import ModelError
from mskscreen.networks.network import build_network


class Complexity(NamedTuple):
    """Number of parameters, and 10^9 multiply-adds for the scores of one image."""

    parameters: int
    gflops: float


def measure(architecture: str, input_size: tuple[int, int]) -> Complexity:
    """Count a network at an input size (H, W), without memory for its weights.

    Raises ModelError for an unknown architecture, and for an input that it cannot take: one too small to leave a
    feature map, or other than its windows of attention divide.
    """
    with torch.device("meta"):
        network = build_network(architecture).eval()
        image = torch.zeros(1, 1, *input_size)
        with FlopCounterMode(display=False) as counter:
            try:
                hidden = network.shared(network.pooled(network.features(image)))
            except (RuntimeError, AssertionError) as error:
                raise ModelError(
                    f"{architecture} cannot take an input of {min(input_size)} pixels; "
                    f"it was made for {network.backbone.pretrained_cfg['input_size'][-1]}"
                ) from error
            network.abnormality(hidden)
            network.joint(hidden)
    flops = counter.get_total_flops()
    return Complexity(sum(p.numel() for p in network.parameters()), flops / 2e9)
