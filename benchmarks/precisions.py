"""Size, gate and speed of every precision, for the six networks and the compact one, trained briefly on phantoms.

    mskscreen phantom make train --studies 300 --seed 20261101
    mskscreen phantom make dev --studies 140 --seed 20261103
    python benchmarks/precisions.py --train train --dev dev                          # all seven, an hour or two
    python benchmarks/precisions.py --train train --dev dev --networks resnet18 --size 96 --images 200

Every network starts from random weights (the compact one from the ImageNet weights of its package), learns for
`--steps` steps of 16 images, is exported uncalibrated, quantised with 100 images of the training set, and judged
on `--images` images of the development set, as `mskscreen export --precision bf16,int8` does it. Speed is images
a second relative to f32 on the same engine, the two in turn; the size is that of the file that holds the weights.
A brief training gives scores near chance: its gates say what rounding does to such a network and nothing of a
good one.

Measured on 2026-11-23 on 2 cores (AMD EPYC, AVX512_VNNI, AVX512_BF16, no AMX) at a load of 20, which disturbs the
speeds: the compact network only, as the demonstration model of 2026-11-22 at 256 pixels, by

    mskscreen export demo.onnx --precision bf16,int8 --calibration train.parquet --calibration-images 60 \\
        --gate dev.parquet                      (206 images, 101 studies of its development phantoms)

    precision         size     gate    speed  AUROC   joint   flips  p       map     limits .005 .005 .01 .01 .95
    openvino/bf16     14.5 MB  failed  x1.61  0.0229  0.0006  0.020  0.0222  0.978
    openvino/int8     4.7 MB   failed  x1.53  0.0008  0.0001  0.020  0.0114  0.991   4 of 50 layers in f32
    onnxruntime/int8  4.7 MB   failed  x1.02  0.0024  0.0004  0.010  0.0127  0.989   the same file

By processor time of one thread at load 6, all layers int8: OpenVINO f32 24.4 ms, bf16 13.1, int8 9.0; ONNX Runtime
f32 23.4, int8 21.9. The six networks are still to be measured: no run of this script has come to its end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mskscreen.contract import ModelContract
from mskscreen.data.mura import index_mura
from mskscreen.export import export_onnx
from mskscreen.export.precisions import Request, add_precisions
from mskscreen.inference.machine import machine_kind
from mskscreen.networks import NETWORKS, ScreeningNetwork, build_network
from mskscreen.pixels import Preprocessing
from mskscreen.training.loop import Phase, Schedule, fit
from mskscreen.training.phantoms import PhantomArrays, load_arrays

COMPACT = "timm:tf_efficientnet_lite0(pool=gem,stride=16)"
BATCH = 16


def trained(architecture: str, arrays: PhantomArrays, steps: int, folder: Path) -> ScreeningNetwork:
    """A network after `steps` steps."""
    torch.manual_seed(0)
    network = build_network(architecture, init="package" if architecture == COMPACT else "random")
    phase = Phase(steps, arrays.images.shape[1], network.architecture.stride)
    return fit(network, arrays, Schedule((phase,), batch=BATCH, rate=1e-3, averaging=0.0), folder).eval()


def measure(architecture: str, options: argparse.Namespace, folder: Path) -> None:
    """Train, export and gate one network, and print its rows of the table."""
    size = 224 if architecture.startswith("vgg") else options.size
    preprocessing = Preprocessing(size, size)
    network = trained(architecture, load_arrays(options.train, preprocessing), options.steps, folder / "run")
    contract = ModelContract(architecture, architecture, str(preprocessing), (size, size))
    export_onnx(network, contract, folder / "f32.onnx")
    train, dev = (index_mura(path / "MURA-v1.1")[0] for path in (options.train, options.dev))
    few = np.sort(np.random.default_rng(0).permutation(len(dev))[: options.images])
    request = Request(["bf16", "int8"], train, dev.take(few), 100)
    contract, _ = add_precisions(folder / "f32.onnx", request, folder / "m.onnx")
    sizes = {name: (folder / "m.onnx").stat().st_size / 1e6 for name in ("f32", "bf16")}
    sizes["int8"] = contract.variants["int8"].bytes / 1e6
    kept = contract.provenance.protocol["precisions"]["int8"]["layers_in_f32"]
    print(f"{architecture} at {size}: f32 {sizes['f32']:.1f} MB, int8 {sizes['int8']:.1f} MB, f32 layers {kept}")
    for key, gate in contract.approved.items():
        found = gate.measures
        flips = max(value for name, value in found.items() if name.startswith("flipped_"))
        print(
            f"  {key.partition('@')[0]:18} {'passed' if gate.passed else 'failed'} x{found['speed']:.2f}  "
            f"AUROC {found['auroc_change']:.4f} joint {found['joint_auroc_change']:.4f} flips {flips:.3f} "
            f"p {found['p_change']:.4f} map {found['map_correlation']:.3f}  on {found['images']:.0f} images",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS, COMPACT])
    parser.add_argument("--size", type=int, default=128, help="side of the input; that of the VGGs is 224")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--images", type=int, default=400, help="development images that the gate judges")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine_kind()}, load average {os.getloadavg()[0]:.1f}")
    for architecture in options.networks:
        architecture = COMPACT if architecture == "compact" else architecture
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            measure(architecture, options, Path(folder))
        print(f"  {time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
