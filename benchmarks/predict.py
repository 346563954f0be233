"""Images a second of `Screener` over a folder of PNGs, against its parts and the usual way; start-up of `predict`.

    python benchmarks/predict.py --precision int8        # all cores; also f32 and bf16
    python benchmarks/predict.py --threads 1             # one thread each: the processor time tells the work alone

A network of random weights is exported (int8: quantised on noise), and 8-bit images of 512 pixels with the
texture of film are made in a temporary folder. Every round times in turn: the usual way (Pillow, then PyTorch
eager f32, image by image), decoding alone (the door and the resize, in as many threads), the engine alone on
arrays that are ready, the Screener on the folder, and a Screener of the same model without its map output.
Figures are medians over the rounds with their range; no precision is judged here, only its speed. Processor
time is given too: other work on the machine hardly changes it, but with more than one thread it counts their
waiting. Last, `mskscreen predict one.png` is timed in processes of its own, with the compiled model in the
cache.

Measured on 2026-11-22, before int8 and the maps were compared, ResNet-18, `--threads 1 --images 160 --rounds 3`,
2 cores of an AMD EPYC with AVX512_BF16 and AVX512_VNNI and without AMX, OpenVINO 2026.4, PyTorch 2.14:

    bf16, load 6.7     engine alone 57.6 (56.8 to 58.7), Screener 46.8 (45.9 to 48.5), usual way 18.9 images/s
                       Screener / engine alone 0.81 (0.81 to 0.83)
                       Screener / usual way    2.44 (2.40 to 2.58)
    f32, load 10.7     by processor time, since the wall told only of the load:
                       Screener / engine alone 0.89 (0.89 to 0.92)
                       Screener / usual way    1.55 (1.50 to 1.55)

Measured on 2026-11-23 on quiet cores of the same machine, `--precision int8 --rounds 3`, 2 threads, 2,000 images:

    engine alone 213 (199 to 217), decoding alone 697 (632 to 738), Screener 149 (148 to 161), usual way 31.9
    (28.5 to 32.4) images/s; Screener / engine alone 0.74 (0.70 to 0.74): 0.7 met, 0.75 of the slower part missed
    Screener / usual way 5.05 (4.60 to 5.19): 5 met at the median, 12 missed; 5.10 (4.70 to 5.28) with 600 images
    with the map / without 1.03 (0.99 to 1.04); predict on one file 0.75 s (0.70 to 0.76)

Processor time on 2026-11-27 beside other work, before and after memory was kept from one image to the next: a PNG
to the model's input 4.4 to 4.8 ms and 3.0 to 3.2. Screener / engine alone, int8, 2 threads, 100 images, 3 rounds
at load 12: 0.67 (0.65 to 0.69) and 0.69 (0.68 to 0.70). The wall, 0.80 (0.79 to 0.82) before and 0.77 (0.77 to
0.78) after, told only of the load. On quiet cores that evening, `--precision int8 --rounds 3`:

    engine alone 198 (179 to 205), decoding alone 495 (425 to 592), Screener 146 (133 to 146), usual way 29.6 (27.1
    to 32.1) images/s; Screener / engine alone 0.71 (0.67 to 0.81), usual way 4.91 (4.53 to 4.92): both missed
    with the map / without 1.01 (0.97 to 1.09); predict on one file 0.84 s (0.82 to 1.01); with the bundled model
    of 448 pixels 0.76 to 1.11 s in eight runs

On 2026-11-28, after Pillow looks up codes of 8 bits, `--precision int8 --rounds 4`, a slower hour of the machine:

    engine alone 184 (172 to 190), decoding alone 409 (383 to 424), Screener 123 (101 to 133), usual way 23.9 (21.2
    to 25.9) images/s; Screener / engine alone 0.68 (0.56 to 0.71), usual way 4.91 (4.78 to 5.65): both missed
    with the map / without 1.02 (0.96 to 1.06); predict on one file 1.05 s (0.90 to 1.11)

The same that day on 2 cores with AVX2 alone (Zen 3: neither VNNI nor BF16), beside other work (load 3.8):

    engine alone 60 (23 to 87), decoding alone 353 (200 to 510), Screener 52 (31 to 73), usual way 7.6 (2.7 to
    18.6) images/s; Screener / engine alone 0.89 (0.81 to 1.31), by processor time 0.83 (0.81 to 0.86): met
    Screener / usual way 8.7 (3.1 to 17.5), by processor time 7.3 (4.0 to 14.7): 12 missed
    with the map / without 1.03 (0.80 to 1.24); predict on one file 1.03 s (0.99 to 1.11)
    predict on one file with the bundled model, which reads mirror images since, 1.08 s (1.00 to 1.26, eight runs)

Decoding and engine share the cores: 1 / (1/184 + 1/409), 127 images a second or 0.69 of the engine alone, is what
their times allow here, and 0.76 on the 23rd: 0.75 asks for decoding in less than a third of the engine's time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.helper import set_model_props
from PIL import Image

from mskscreen import Screener
from mskscreen.contract import METADATA_KEY, ModelContract
from mskscreen.export import export_onnx
from mskscreen.export.quantise import quantise_on_noise
from mskscreen.inference import Engine
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.engines import cores
from mskscreen.networks import NETWORKS, ScreeningNetwork, build_network
from mskscreen.pixels import read_radiograph
from mskscreen.pixels.memory import keep_freed_memory

DISTINCT = 100
COMMAND = [sys.executable, "-c", "from mskscreen.cli.main import run; run()", "predict"]


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


def decode_alone(screener: Screener, files: list[Path], threads: int) -> int:
    """From files to arrays, and nothing else."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(1 for _ in pool.map(lambda file: screener.preprocessing(read_radiograph(file)), files))


def without_map(model: Path) -> Path:
    """The model without its map output; engines leave out what only that needed."""
    graph = onnx.load(model)
    (output,) = [output for output in graph.graph.output if output.name == "map"]
    graph.graph.output.remove(output)
    set_model_props(graph, {METADATA_KEY: replace(read_contract(model), map=None).to_json()})
    plain = model.with_name("plain.onnx")
    plain.write_bytes(graph.SerializeToString())
    return plain


def start_up(file: Path) -> float:
    """Seconds of `mskscreen predict` on one file with the demonstration model."""
    start = time.perf_counter()
    subprocess.run([*COMMAND, file], check=True, capture_output=True)
    return time.perf_counter() - start


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
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16", "int8"])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    keep_freed_memory()  # as the commands do
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
        )
        export_onnx(network, contract, model)
        if options.precision == "int8":
            model = quantise_on_noise(model, model.with_name("int8.onnx"))

        def load(path: Path) -> Screener:
            return Screener.load(
                path, engine="openvino", precision=options.precision, threads=options.threads, unapproved=True
            )

        screener, plain = load(model), load(without_map(model))
        arrays = np.random.default_rng(0).random((options.images // 4, 1, size, size), np.float32)
        ways: dict[str, Callable[[], int]] = {
            "usual way": lambda: usual_way(network, files[: options.images // 10], size),
            "decoding alone": lambda: decode_alone(screener, files[: options.images // 2], options.threads),
            "engine alone": lambda: engine_alone(screener.engine, arrays),
            "Screener": lambda: screen(screener, folder, options.threads),
            "Screener without map": lambda: screen(plain, folder, options.threads),
        }
        report(measure(ways, options.rounds))
        seconds = [start_up(files[0]) for _ in range(options.rounds + 1)][1:]
        print(f"predict on one file, seconds {_spread(seconds)} (target 1.2)")


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
    for part, clock in enumerate(("wall", "processor")):

        def ratios(above: str, below: str, part: int = part) -> list[float]:
            return [one[part] / two[part] for one, two in zip(times[above], times[below], strict=True)]

        alone = max(
            ("engine alone", "decoding alone"), key=lambda name: statistics.median(ratios(name, "Screener"))
        )
        figures = {
            f"Screener / {alone}, the slower of its parts (target 0.75)": ratios(alone, "Screener"),
            "Screener / usual way (target 12)": ratios("usual way", "Screener"),
            "time with map / without (target 1.15)": ratios("Screener", "Screener without map"),
        }
        for name, values in figures.items():
            print(f"{name:70} {_spread(values)} by {clock} time")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
