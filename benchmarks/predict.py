"""Images a second of `Screener` over a folder of PNGs, against the engine alone and against the usual way.

    python benchmarks/predict.py                         # f32 on all cores
    python benchmarks/predict.py --precision bf16        # on a processor that computes in bf16
    python benchmarks/predict.py --threads 1             # one thread each: the processor time tells the work alone

A network of random weights is exported, and 8-bit images of 512 pixels with the texture of film are made in a
temporary folder. Every round times in turn: the usual way (Pillow, then PyTorch eager f32, image by image), the
engine alone on arrays that are ready, and the Screener on the folder. Figures are medians over the rounds with
their range; the network's contract approves bf16 by hand. Processor time is given too: other work on the machine
hardly changes it, but with more than one thread it counts their waiting.

Measured on 2026-11-22, ResNet-18, `--threads 1 --images 160 --rounds 3`, 2 cores of an AMD EPYC with AVX512_BF16
and without AMX, OpenVINO 2026.4, PyTorch 2.14:

    bf16, load 6.7     engine alone 57.6 (56.8 to 58.7), Screener 46.8 (45.9 to 48.5), usual way 18.9 images/s
                       Screener / engine alone 0.81 (0.81 to 0.83), target 0.7: met
                       Screener / usual way    2.44 (2.40 to 2.58), target 5: missed
    f32, load 10.7     by processor time, since the wall told only of the load:
                       Screener / engine alone 0.89 (0.89 to 0.92), target 0.7: met
                       Screener / usual way    1.55 (1.50 to 1.55), target 5: missed

bf16 without AMX doubles f32 and no more, and the engine alone is here 3 times the usual way: 5 needs int8. The run
on all cores with 2,000 images is still to be made on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mskscreen import Screener
from mskscreen.contract import Gate, ModelContract
from mskscreen.export import export_onnx
from mskscreen.inference import Engine
from mskscreen.inference.engines import cores
from mskscreen.networks import NETWORKS, ScreeningNetwork, build_network

DISTINCT = 100


def make_images(folder: Path, count: int) -> list[Path]:
    """Write smooth shapes under fine noise; after `DISTINCT` of them the same images come again as other files."""
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(count)]
    for file in files[:DISTINCT]:
        coarse = Image.fromarray(rng.random((9, 9), np.float32) * 200).resize((512, 512), Image.Resampling.BICUBIC)
        pixels = np.asarray(coarse) + rng.normal(0, 3, (512, 512))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)
    for number, file in enumerate(files[DISTINCT:]):
        file.write_bytes(files[number % DISTINCT].read_bytes())
    return files


def usual_way(network: ScreeningNetwork, files: list[Path], size: int) -> int:
    """Pillow and PyTorch, one image after the other."""
    with torch.inference_mode():
        for file in files:
            with Image.open(file) as image:
                pixels = image.convert("L").resize((size, size), Image.Resampling.BILINEAR)
            network(torch.from_numpy(np.asarray(pixels, np.float32) / 255)[None, None])
    return len(files)


def engine_alone(engine: Engine, arrays: np.ndarray) -> int:
    """The engine on arrays that are ready."""
    engine.run(arrays)
    return len(arrays)


def screen(screener: Screener, folder: Path, workers: int) -> int:
    """All of it: find, read, decode, resize, infer, make rows."""
    return sum(row.error is None for row in screener.stream(folder, workers=workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18", choices=sorted(NETWORKS))
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = NETWORKS[options.network].input_size
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name) / "images", Path(name) / "model.onnx"
        folder.mkdir()
        files = make_images(folder, options.images)
        network = build_network(options.network).eval()
        contract = ModelContract(
            options.network,
            options.network,
            f"decode|grayscale|window(auto)|resize({size},{size},bilinear,antialias)|unit",
            (size, size),
            approved={"openvino/bf16": Gate(True)},
        )
        export_onnx(network, contract, model)
        screener = Screener.load(model, engine="openvino", precision=options.precision, threads=options.threads)
        arrays = np.random.default_rng(0).random((options.images // 4, 1, size, size), np.float32)
        ways: dict[str, Callable[[], int]] = {
            "usual way": lambda: usual_way(network, files[: options.images // 10], size),
            "engine alone": lambda: engine_alone(screener.engine, arrays),
            "Screener": lambda: screen(screener, folder, options.threads),
        }
        report(measure(ways, options.rounds))


def measure(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of wall and of processor for an image, of each way in each round, after one round not counted."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            images = way()
            spent = (time.perf_counter() - wall) / images, (time.process_time() - processor) / images
            if number:
                times[name].append(spent)
    return times


def report(times: dict[str, list[tuple[float, float]]]) -> None:
    """Print speeds, and ratios round by round so that a busy machine disturbs both sides alike."""
    print(f"{cores()} cores, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}")
    for name, spent in times.items():
        print(f"{name:26} {_spread([1 / wall for wall, _ in spent])} images/s")
        print(f"{'':26} {_spread([1000 * processor for _, processor in spent])} ms of processor an image")
    for name, target in (("engine alone", 0.7), ("usual way", 5.0)):
        for part, clock in enumerate(("wall", "processor")):
            ratios = [a[part] / b[part] for a, b in zip(times[name], times["Screener"], strict=True)]
            print(f"Screener / {name:15} {_spread(ratios)} by {clock} time (target {target})")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
