"""Speed and memory of `mskscreen train`, each figure a ratio of two things timed in turn in one run.

    python benchmarks/train.py speed                      # about 10 minutes on two quiet cores
    python benchmarks/train.py speed --processor-time     # the same on one thread of a core that others use too
    python benchmarks/train.py memory

`speed` takes turns between epochs of `train` on noise of the size of radiographs, a bare loop (forward, backward,
step on tensors that are in memory already; same network, precision, layout and optimiser) and what is usually
written (PNG files decoded by a DataLoader, torchvision's transforms, float32, contiguous, AdamW as it comes).
`memory` compares the resident sets of runs on data sets of one and of eight times a size.

Aims: at least 0.9 of the bare loop, and 3 times the usual one where the processor has AMX or bfloat16. On
2026-11-27, by processor time of one thread (AMD EPYC, AVX512_BF16, no AMX), three turns of ResNet-18 at 224
pixels, --images 200: 0.98 of the bare loop (0.93 to 1.01), met; 2.04 of the usual one (1.96 to 2.09), missed. The
bare loop itself is 2.0 to 2.2 times the usual one, so no way of feeding it would reach 3 on this processor.
Four fifths of its step are oneDNN's convolutions; torch.compile does not shorten it (13.1 images a second against
13.9 without, one thread, five steps of 32 in turn).

Memory, on 2026-11-23, 200 and 1,600 images at 224 pixels, a tiny network: 1,018 and 1,029 MB resident, a ratio of
1.01; 607 and 619 MB without mapped files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from mskscreen.data.cache import CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.data.folds import split
from mskscreen.data.manifest import Manifest
from mskscreen.networks import build_network
from mskscreen.training.learner import precision, scores
from mskscreen.training.material import preprocessing, read_data
from mskscreen.training.protocol import Protocol
from mskscreen.training.run import train

JOINTS = ("elbow", "hand", "wrist")


def data_set(folder: Path, count: int, size: int) -> Path:
    """A manifest of `count` gray PNG files of MURA's usual size, eight patients in ten for training."""
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        coarse = rng.integers(0, 255, (16, 12), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((size * 3 // 4, size), Image.Resampling.BICUBIC)
        picture.save(images / f"{i}.png")
        rows.append(
            {
                "image": f"{i}.png",
                "study": f"study {i}",
                "patient": f"patient {i}",
                "joint": JOINTS[i % 3],
                "label": i // 3 % 2,
                "bytes": (images / f"{i}.png").stat().st_size,
            }
        )
    manifest = split(Manifest.from_rows(images, rows, "benchmark"), development=0.2)
    manifest.write(folder / "folds.parquet")
    return folder / "folds.parquet"


Clock = Callable[[], float]


def of_train(data: Path, protocol: Protocol, out: Path, cache: Path, clock: Clock) -> float:
    """Images a second of the steps of a run, from the second step on."""
    marks: list[float] = []

    def note(at: object) -> None:
        if getattr(at, "metrics", None) is None:
            marks.append(clock())

    train(data, protocol, out, cache=cache, report=note)
    return protocol.batch * (len(marks) - 1) / (marks[-1] - marks[0])


def of_loop(
    protocol: Protocol,
    batches: Iterator[tuple[torch.Tensor, ...]],
    steps: int,
    clock: Clock,
    *,
    bfloat16: bool,
    layout: torch.memory_format,
    fused: bool,
) -> float:
    """Images a second of forward, backward and step, from the second step on."""
    torch.manual_seed(0)
    network = build_network(protocol.architecture).to(memory_format=layout).train()
    optimiser = torch.optim.AdamW(network.parameters(), protocol.rate, fused=fused)
    marks: list[float] = []
    for _ in range(steps):
        image, label, joint = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            pred1, pred2 = scores(network, image)
            loss = functional.cross_entropy(pred1.float(), label) + functional.cross_entropy(pred2.float(), joint)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loss.item()
        marks.append(clock())
    return protocol.batch * (steps - 1) / (marks[-1] - marks[0])


def resident(protocol: Protocol) -> Iterator[tuple[torch.Tensor, ...]]:
    """Ever the same batch."""
    size = preprocessing(protocol).height
    batch = (
        torch.rand(protocol.batch, 1, size, size),
        torch.arange(protocol.batch) % 2,
        torch.arange(protocol.batch) % 3,
    )
    while True:
        yield batch


class Files(Dataset):
    """PNG files with torchvision's transforms, as most training scripts read them."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files = sorted(folder.glob("*.png"))
        self.change = v2.Compose(
            [
                v2.RandomAffine(15, (0.05, 0.05), (0.9, 1.1)),
                v2.Resize((size, size), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(contrast=0.2),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int, int]:
        with Image.open(self.files[row]) as picture:
            return self.change(picture.convert("L")), row % 2, row % 3


def from_files(protocol: Protocol, folder: Path, workers: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches without end of a plain DataLoader."""
    files = Files(folder, preprocessing(protocol).height)
    batches = DataLoader(
        files,
        protocol.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from batches


def speed(options: argparse.Namespace) -> None:
    """Print images a second of the three, and the two ratios of every turn."""
    clock: Clock = time.perf_counter
    workers = 1
    if options.processor_time:
        # Then everything happens in this one thread, where it is counted.
        clock, workers = time.process_time, 0
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = data_set(folder, options.images, 512)
        protocol = Protocol(architecture=options.architecture, init="random", epochs=1, batch=options.batch)
        decode(data, protocol, folder)
        steps = (options.images * 4 // 5) // options.batch
        bfloat16 = precision(protocol, cuda=False) == "bf16"
        ways: dict[str, Callable[[int], float]] = {
            "train": lambda turn: of_train(data, protocol, folder / f"run{turn}", folder / "cache", clock),
            "bare": lambda _: of_loop(
                protocol,
                resident(protocol),
                steps,
                clock,
                bfloat16=bfloat16,
                layout=torch.channels_last,
                fused=True,
            ),
            "usual": lambda _: of_loop(
                protocol,
                from_files(protocol, folder / "images", workers),
                steps,
                clock,
                bfloat16=False,
                layout=torch.contiguous_format,
                fused=False,
            ),
        }
        found = [{name: way(turn) for name, way in ways.items()} for turn in range(options.turns)]
        for turn in found:
            print({name: round(value, 2) for name, value in turn.items()})
        for other in ("bare", "usual"):
            ratios = [turn["train"] / turn[other] for turn in found]
            print(
                f"train / {other}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
            )


def decode(data: Path, protocol: Protocol, folder: Path) -> None:
    """Fill the cache before anything is timed."""
    (folder / "cache").mkdir(exist_ok=True)
    contract = CacheContract(str(preprocessing(protocol)))
    build_cache(read_data(data, protocol), folder / "cache", contract)


def peak(options: argparse.Namespace) -> None:
    """Train once and print the peak of this process's resident set, with and without mapped files, in MB."""
    highest = {"VmRSS": 0, "RssAnon": 0}

    def note(_: object) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        for name in highest:
            highest[name] = max(highest[name], int(status[name].split()[0]) // 1024)

    protocol = Protocol(architecture=options.architecture, init="random", epochs=1, batch=8)
    train(options.data, protocol, options.data.parent / "run", cache=options.data.parent / "cache", report=note)
    print(json.dumps(highest))


def memory(options: argparse.Namespace) -> None:
    """Print the peaks of two data sets, each trained on in a process of its own, and their ratio."""
    found = []
    for count in (options.images, 8 * options.images):
        with tempfile.TemporaryDirectory() as place:
            data = data_set(Path(place), count, 256)
            decode(data, Protocol(architecture=options.architecture, init="random"), Path(place))
            command = [
                sys.executable,
                __file__,
                "peak",
                "--data",
                str(data),
                "--architecture",
                options.architecture,
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
            print(f"{count} images: {found[-1]} MB")
    print({name: round(found[1][name] / found[0][name], 3) for name in found[0]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "peak"])
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true", help="seconds of one thread, not of the clock")
    parser.add_argument("--data", type=Path)
    chosen = parser.parse_args()
    {"speed": speed, "memory": memory, "peak": peak}[chosen.what](chosen)
