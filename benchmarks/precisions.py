"""Size, gate and speed of every precision of the networks that a search has trained.

    python benchmarks/precisions.py --search search --out models               # after docs/results/phantom-search
    python benchmarks/precisions.py --search search --out models --cells resnet18 compact

Every finished run that learned both tasks goes through

    mskscreen export best.safetensors --precision f32,bf16,int8 --calibration data.parquet \\
        --calibration-images 100 --gate data.parquet

with the manifest of the search: int8 is calibrated on images of its training folds, and the gate judges its whole
development fold. Speed is images a second relative to f32 on the same engine, the two in turn; the size is that of
the file that holds the weights; flips are the most of any operating point.

Measured on 2026-11-27 on one core (AMD EPYC, AVX512_VNNI, AVX512_BF16, no AMX) that other work shared, on the
search of docs/results/phantom-search (96 pixels, 723 images of 369 studies):

    precision         MB     gate    speed  AUROC   joint   flips  p       map    layers in f32
    limits                                  .0050   .0050   .010   .0100   .950
    resnet18, 3 epochs
    openvino/bf16     44.9   passed  x1.89  0.0003  0.0000  0.003  0.0004  0.998
    openvino/int8     11.5   passed  x2.59  0.0031  0.0017  0.008  0.0026  0.964  0 of 21
    onnxruntime/int8  11.5   passed  x2.15  0.0036  0.0016  0.005  0.0026  0.961  the same file
    compact, ImageNet weights, 3 epochs
    openvino/bf16     14.0   failed  x1.59  0.0059  0.0004  0.057  0.0165  0.947
    openvino/int8     5.4    failed  x1.29  0.0004  0.0001  0.019  0.0074  0.988  16 of 50
    onnxruntime/int8  5.4    failed  x0.61  0.0004  0.0000  0.022  0.0077  0.988  the same file
    compact, random weights, 3 epochs
    openvino/bf16     14.0   failed  x1.39  0.0017  0.0010  0.022  0.0043  0.911
    openvino/int8     6.4    failed  x1.24  0.0099  0.0073  0.030  0.0067  0.923  16 of 50
    onnxruntime/int8  6.4    failed  x0.51  0.0113  0.0074  0.030  0.0067  0.917  the same file
    inception_v3, random weights, 3 epochs
    openvino/bf16     88.0   passed  x1.87  0.0043  0.0013  0.005  0.0032  1.000
    openvino/int8     34.6   failed  x1.52  0.0019  0.0200  0.051  0.0085  1.000  32 of 95
    onnxruntime/int8  34.6   failed  x0.96  0.0027  0.0194  0.051  0.0085  1.000  the same file
    densenet121, random weights, 1 epoch
    openvino/bf16     28.6   passed  x1.56  0.0002  0.0001  0.000  0.0005  0.998
    openvino/int8     12.9   failed  x1.52  0.0073  0.0054  0.014  0.0094  0.898  32 of 121
    onnxruntime/int8  12.9   passed  x0.70  0.0005  0.0001  0.000  0.0037  0.981  the same file
    xception, random weights, 1 epoch
    openvino/bf16     84.0   passed  x1.77  0.0010  0.0006  0.003  0.0009  0.995
    openvino/int8     57.4   failed  x1.37  0.0108  0.0986  0.065  0.0336  0.377  32 of 75
    onnxruntime/int8  57.4   passed  x1.07  0.0024  0.0001  0.003  0.0016  0.988  the same file
    vgg16_bn, random weights, 1 epoch, 32 pixels
    openvino/bf16     538.7  passed  x1.60  0.0000  0.0000  0.000  0.0000  1.000
    openvino/int8     136.0  passed  x2.95  0.0000  0.0000  0.000  0.0000  1.000  0 of 22
    onnxruntime/int8  136.0  passed  x0.57  0.0000  0.0000  0.000  0.0000  1.000  the same file
    vgg19_bn, random weights, 1 epoch, 32 pixels
    openvino/bf16     559.9  passed  x1.61  0.0000  0.0000  0.000  0.0000  1.000
    openvino/int8     141.4  passed  x3.13  0.0000  0.0000  0.000  0.0000  1.000  0 of 25
    onnxruntime/int8  141.4  passed  x0.70  0.0000  0.0000  0.000  0.0000  1.000  the same file

The f32 file is that of bf16, too. Inception's map at 96 pixels is one cell, which says nothing. These networks are
briefly trained: of the scores of the compact ones and of ResNet-18, 30 to 65 % lie within 0.05 of the threshold,
where rounding flips decisions, so the gates say what rounding does to such networks and little of good ones. Where
int8 failed, 1, 2, 4 ... layers were given back to f32, up to half, and the attempt that came closest is shown: it
has lost most of its speed, on ONNX Runtime all of it. The VGGs have collapsed in training and give every image the
same score: their gates pass by that, and only sizes and speeds are measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from mskscreen.contract import Gate, ModelContract
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.machine import machine_kind
from mskscreen.search.plan import DATA, Plan, State, ending
from mskscreen.search.space import Run
from mskscreen.training.learner import BEST

COMMAND = Path(sys.executable).with_name("mskscreen")
SOME_FAILED = 3
HEADER = ("precision", "MB", "gate", "speed", "AUROC", "joint", "flips", "p", "map", "layers in f32")


def exported(plan: Plan, run: Run, out: Path, images: int) -> Path:
    """What `mskscreen export` makes of a run, with its precisions gated; what is there already stays."""
    model, data = out / f"{run.cell.replace(' ', '-')}.onnx", str(plan.folder / DATA)
    request = ["--precision", "f32,bf16,int8", "--calibration", data, "--gate", data]
    done = subprocess.run(
        [COMMAND, "export", plan.of(run) / BEST, "--out", model, *request, "--calibration-images", str(images)],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    # That a precision failed its gate is a finding.
    if done.returncode not in (0, SOME_FAILED):
        raise SystemExit(f"{run.cell}: export ended with code {done.returncode}")
    return model


def row(name: str, size: float, gate: Gate, kept: str) -> list[str]:
    """One precision on one engine: what of its limits it took."""
    found = gate.measures
    flips = max(value for measure, value in found.items() if measure.startswith("flipped_"))
    return [
        name,
        f"{size:.1f}",
        "passed" if gate.passed else "failed",
        f"x{found['speed']:.2f}",
        *(f"{found[measure]:.4f}" for measure in ("auroc_change", "joint_auroc_change")),
        f"{flips:.3f}",
        f"{found['p_change']:.4f}",
        f"{found['map_correlation']:.3f}",
        kept,
    ]


def rows(model: Path, contract: ModelContract) -> list[list[str]]:
    """The rows of one network on this kind of machine."""
    int8 = contract.provenance.protocol["precisions"]["int8"]
    kept = f"{len(int8['layers_in_f32'])} of {int8['layers']}"
    found = []
    for key, gate in contract.approved.items():
        name, _, machine = key.partition("@")
        if machine == machine_kind():
            whole = name.endswith("int8")
            size = contract.variants["int8"].bytes if whole else model.stat().st_size
            found.append(row(name, size / 1e6, gate, kept if whole else ""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, required=True, help="folder of a search")
    parser.add_argument("--out", type=Path, required=True, help="folder for the models")
    parser.add_argument("--cells", nargs="*", help="only cells whose name holds one of these")
    parser.add_argument("--calibration-images", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan.read(options.search)
    print(f"{machine_kind()}, load average {os.getloadavg()[0]:.1f}")
    for run in plan.runs:
        end = ending(plan.of(run))
        chosen = not options.cells or any(name in run.cell for name in options.cells)
        if run.protocol.tasks != "both" or not end or end.state is not State.DONE or not chosen:
            continue
        start = time.monotonic()
        model = exported(plan, run, options.out, options.calibration_images)
        contract = read_contract(model)
        print(f"{run.cell}, {contract.input_size[0]} pixels ({time.monotonic() - start:.0f} s)")
        for line in (HEADER, *rows(model, contract)):
            print(
                "  " + "  ".join(f"{cell:17}" if i == 0 else f"{cell:6}" for i, cell in enumerate(line)).rstrip()
            )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
