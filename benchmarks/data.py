"""Speed of the data room: index, PNG decoding, cache build, cache read, loader and audit, side by side.

    python benchmarks/data.py            # makes 300 phantoms of 512 pixels in a temporary folder
    python benchmarks/data.py ROOT       # any copy of MURA instead

Every round times all things in turn on the same images; figures are medians over the rounds with their range. Time
is that of the processor, child processes included, so that a busy machine is not charged to the code: what two
processes do takes half of it on two free cores.

The index of 40,561 rows, written as a manifest, took 4.3 s (3.6 - 4.8) on quiet cores on 23 November 2026, by the
clock and of the processor alike (asked: <= 10 s from warm disk).

Measured on 22 November 2026, 2 shared cores of an x86 server, 900 phantoms of 512 pixels, a 224 x 224 uint8 cache:

    near duplicates among 40,000 images     4.0 s
                                        images/s             range  times Pillow           range
    PNG decode and resize by Pillow          489      407 -    514           1.0     1.0 -   1.0
    decode and preprocess, this project      431      395 -    435           0.9     0.8 -   1.0
    cache build, 2 processes                 261      223 -    272           0.5     0.5 -   0.5
    audit, 2 processes                       118      103 -    121           0.2     0.2 -   0.3
    loader with augmentation                 417      143 -    487           1.0     0.3 -   1.0
    loader without augmentation             9956     8960 -   9956          20.4    19.4 -  22.0
    cache read, random batches             64000    58182 -  71111         145.4   113.1 - 157.2  (asked: >= 100)

Builds and audits of 900 images include the start of two processes. An audit of 40,000 rows took 265 s of processor
time and 297 s by the clock on the two cores beside other work (asked: <= 15 min).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mskscreen.data.audit.run import audit
from mskscreen.data.cache import Cache, CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import index_mura
from mskscreen.pixels import Preprocessing, read_radiograph

ROUNDS = 3
IMAGES = 900
BATCH = 32
STRING = "decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit"
AUGMENTATION = "rotation(15)|scale(0.9,1.1)|translation(0.1)|flip(0.5)|contrast(0.2)|gamma(0.8,1.25)|noise(0.02)"


def processor_time() -> float:
    """Seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def pillow(manifest: Manifest) -> int:
    """What a usual loader does: open, convert, resize."""
    for image in manifest["image"]:
        with Image.open(manifest.root / image) as file:
            np.asarray(file.convert("L").resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    return len(manifest)


def decode(manifest: Manifest) -> int:
    """The project's decoder and preprocessing."""
    preprocessing = Preprocessing.parse(STRING)
    for image in manifest["image"]:
        preprocessing(read_radiograph(manifest.root / image))
    return len(manifest)


def build(manifest: Manifest, workers: int) -> int:
    """A new cache."""
    with tempfile.TemporaryDirectory() as folder:
        build_cache(manifest, Path(folder), CacheContract(STRING), workers=workers)
    return len(manifest)


def read(cache: Cache, batches: int) -> int:
    """Random batches from the cache, as float32."""
    rng = np.random.default_rng(0)
    for _ in range(batches):
        cache.read(rng.integers(0, len(cache), BATCH))
    return batches * BATCH


def load(manifest: Manifest, cache: Cache, augmentation: str) -> int:
    """An epoch of the training loader in this process."""
    from mskscreen.training.augment import Augmentation
    from mskscreen.training.loader import RadiographDataset, loader
    from mskscreen.training.sampling import RadiographSampler

    dataset = RadiographDataset(manifest, cache, Augmentation.parse(augmentation))
    sampler = RadiographSampler(dataset.labels, dataset.joints)
    return sum(len(batch["image"]) for batch in loader(dataset, sampler, batch=BATCH))


def audited(manifest: Manifest, workers: int) -> int:
    """A whole audit without label noise."""
    with tempfile.TemporaryDirectory() as folder:
        audit(manifest, Path(folder), workers=workers)
    return len(manifest)


def published_index() -> None:
    """The index of lists of the published size with the hidden test set, and its manifest; files hold one byte."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_lists(Path(folder), published_studies(hidden=True))
        used, clock = [], []
        for _ in range(ROUNDS):
            start, now = processor_time(), time.monotonic()
            manifest, _ = index_mura(root)
            manifest.write(Path(folder) / "index.parquet")
            used.append(processor_time() - start)
            clock.append(time.monotonic() - now)
    print(
        f"index of {len(manifest):,} rows: {statistics.median(used):.1f} s ({min(used):.1f} - {max(used):.1f}) "
        f"of the processor, {statistics.median(clock):.1f} s ({min(clock):.1f} - {max(clock):.1f}) by the clock"
    )


def rates(things: dict[str, Callable[[], int]]) -> dict[str, list[float]]:
    """Images a second of processor time of each thing in each round."""
    found: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(ROUNDS):
        for name, thing in things.items():
            start = processor_time()
            found[name].append(thing() / (processor_time() - start))
    return found


def duplicates_of(count: int) -> float:
    """Seconds to compare every pair of `count` random images."""
    from mskscreen.data.audit.duplicates import near_pairs

    rng = np.random.default_rng(0)
    hashes, thumbs = rng.integers(0, 2**63, count, np.uint64), rng.random((count, 1024), np.float32)
    start = processor_time()
    list(near_pairs(hashes, thumbs))
    return processor_time() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    published_index()
    print(f"near duplicates among 40,000 images: {duplicates_of(40_000):.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None:
            from mskscreen.phantom.dataset import make
            from mskscreen.phantom.plan import Recipe

            make(Path(folder) / "phantoms", Recipe(150, seed=1), options.workers)
        manifest, _ = index_mura(options.root or Path(folder) / "phantoms")
        manifest = manifest.take(np.resize(np.arange(len(manifest)), IMAGES))
        cache, _ = build_cache(manifest, Path(folder), CacheContract(STRING))
        found = rates(
            {
                "PNG decode and resize by Pillow": partial(pillow, manifest),
                "decode and preprocess, this project": partial(decode, manifest),
                f"cache build, {options.workers} processes": partial(build, manifest, options.workers),
                f"audit, {options.workers} processes": partial(audited, manifest, options.workers),
                "loader with augmentation": partial(load, manifest, cache, AUGMENTATION),
                "loader without augmentation": partial(load, manifest, cache, "none"),
                "cache read, random batches": partial(read, cache, 200),
            }
        )
    base = found["PNG decode and resize by Pillow"]
    print(f"{'':38}{'images/s':>10}{'range':>18}{'times Pillow':>14}{'range':>16}")
    for name, values in found.items():
        ratios = [value / reference for value, reference in zip(values, base, strict=True)]
        print(
            f"{name:38}{statistics.median(values):10.0f}{min(values):9.0f} -{max(values):7.0f}"
            f"{statistics.median(ratios):14.1f}{min(ratios):8.1f} -{max(ratios):6.1f}"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))
    from mura_lists import published_studies, write_lists

    main()
