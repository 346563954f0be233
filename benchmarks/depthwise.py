"""How long a training step of a network of depthwise convolutions takes in bf16, with and without quick gradients.

    python benchmarks/depthwise.py                        # about 3 minutes on two quiet cores
    python benchmarks/depthwise.py --architecture timm:mobilenetv3_large_100 --size 320

Each round takes one step (forward, backward, AdamW) of each kind in turn: float32; bf16 by autocast alone; bf16
inside `QuickDepthwise`, as `mskscreen train` does it.

On 2026-11-28, two cores of an AMD EPYC (AVX512_BF16), PyTorch 2.14, 16 images of 448 pixels, all layers trained:

    f32 2.76 s, bf16 2.99 s, bf16 quick 2.09 s a step
    f32 / quick 1.59 (1.18 to 1.69), bf16 / quick 1.69 (1.31 to 1.84)

What slows bf16 down are single kernels of oneDNN. Milliseconds in f32 and in bf16, 32 images, beside other work:

    gradient of the weight, 144 channels of 112 pixels, kernel 5, stride 2    124   540
    gradient of the images, the same                                           31   487
    gradient of the weight, 672 channels of 28 pixels, kernel 5                84   301
    gradient of the images, 240 channels of 56 pixels, kernel 3, stride 2      10   197
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack

import torch
from torch.nn import functional

from mskscreen.networks import build_network
from mskscreen.training.depthwise import QuickDepthwise


def main() -> None:
    """Print the seconds of a step of each kind, and the ratios with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    network = build_network(options.architecture).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-5)
    images = torch.rand(options.batch, 1, options.size, options.size)
    labels = torch.arange(options.batch) % 2

    def seconds(bf16: bool, quick: bool) -> float:
        began = time.perf_counter()
        with ExitStack() as contexts:
            contexts.enter_context(torch.autocast("cpu", torch.bfloat16, enabled=bf16))
            if quick:
                contexts.enter_context(QuickDepthwise())
            scores = network(images)[0]
        optimiser.zero_grad()
        functional.cross_entropy(scores.float(), labels).backward()
        optimiser.step()
        return time.perf_counter() - began

    kinds = {"f32": (False, False), "bf16": (True, False), "bf16, quick": (True, True)}
    for kind in kinds.values():
        seconds(*kind)
    rounds = [{name: seconds(*kind) for name, kind in kinds.items()} for _ in range(options.rounds)]
    for name in kinds:
        print(f"{name:12} {statistics.median(each[name] for each in rounds):.2f} s a step of {options.batch}")
    for name in ("f32", "bf16"):
        ratios = sorted(each[name] / each["bf16, quick"] for each in rounds)
        middle = statistics.median(ratios)
        print(f"{name} / quick: {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
