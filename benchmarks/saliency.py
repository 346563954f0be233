"""RISE of mskscreen against that of xaitk-saliency, on the same model, engine and image.

    python -m venv /tmp/xaitk && /tmp/xaitk/bin/pip install . xaitk-saliency     # beside the project, not in it
    /tmp/xaitk/bin/python benchmarks/saliency.py --threads 1

Both explain the log-odds of "abnormal" with grids of 8 x 8 cells, and both run the model through the same engine.
Every round times in turn 1,000 masks of xaitk-saliency (debiased, as its RISEStack does by default) and 512
passes of ours. Its nine maps also are the reference: each is compared with the mean of the other eight, which is a
map of 8,000 masks, and ours with the mean of eight. From that follows how few passes of ours agree with the
reference as well as 1,000 of its own, and the time for equal correlation. Figures are medians with their range;
processor time is given beside the wall, since other work on the machine hardly changes it.

2026-11-27, bundled model, one thread, a core shared with other work (load 6):

    correlation with 8 x 1,000 masks of theirs: 1,000 of theirs 0.853 (0.819 to 0.915); ours 128 passes 0.921
    (0.858 to 0.921), 256 passes 0.926 (0.922 to 0.956), 512 passes 0.952 (0.948 to 0.957)
    passes a second, ours / theirs: 1.26 (0.88 to 1.36) by wall, 1.30 (1.15 to 1.42) by processor time
    time for equal correlation (128 passes of ours), theirs / ours: 9.8 (6.9 to 10.6) by wall, 10.2 (9.0 to 11.1)
    by processor time: 5 is met, by needing fewer passes and not by faster ones

The run took about seven minutes of processor with the model of that day. With the one bundled since, of 448 pixels
and mirror images, a trial (`--masks 200 --rounds 3`) takes more than that; it prints only at its end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from smqtk_classifier.interfaces.classify_image import ClassifyImage
from xaitk_saliency.impls.gen_image_classifier_blackbox_sal.rise import RISEStack

from mskscreen import Screener
from mskscreen.pixels import read_radiograph
from mskscreen.saliency.rise import Settings, rise
from mskscreen.saliency.target import Score, Target

ROOT = Path(__file__).parents[1]
MASKS, ROUNDS, PASSES, SEEDS = 1000, 9, (128, 256, 512), 3
_BATCH = 32


class Classifier(ClassifyImage):
    """The engine behind the interface that xaitk-saliency asks for, in batches."""

    def __init__(self, score: Score) -> None:
        self._score = score

    def get_labels(self) -> list[str]:
        return ["abnormal"]

    def classify_images(self, images: Any) -> Iterator[dict[str, float]]:
        waiting: list[np.ndarray] = []
        for image in images:
            waiting.append(image)
            if len(waiting) == _BATCH:
                yield from self._batch(waiting)
                waiting = []
        if waiting:
            yield from self._batch(waiting)

    def _batch(self, images: list[np.ndarray]) -> Iterator[dict[str, float]]:
        for value in self._score(np.stack(images)[:, None].astype(np.float32) / np.float32(255)):
            yield {"abnormal": float(value)}

    def get_config(self) -> dict[str, Any]:
        return {}


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """A map with the seconds of wall and of processor it took."""
    wall, processor = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - wall, time.process_time() - processor


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--image", type=Path, default=ROOT / "examples/humerus.png")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--masks", type=int, default=MASKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    screener = Screener.load(options.model, precision="f32", threads=options.threads)
    target = Target.parse("abnormal")
    image = screener.preprocessing(read_radiograph(options.image))
    stored = np.round(image[0] * 255).astype(np.uint8)

    def score(batch: np.ndarray) -> np.ndarray:
        return target.log_odds(screener.engine.run(batch))

    def theirs(seed: int) -> np.ndarray:
        stack = RISEStack(n=options.masks, s=8, p1=0.5, seed=seed, threads=options.threads or 0)
        return stack.generate(stored, Classifier(score))[0]

    def ours(passes: int, seed: int) -> np.ndarray:
        return rise(score, image, Settings(passes, seed=seed, bound=0)).values

    score(image[None].repeat(_BATCH, 0))
    xaitk, mine, maps = [], [], []
    for seed in range(options.rounds):
        found, *spent = timed(lambda seed=seed: theirs(seed))
        maps.append(found)
        xaitk.append(spent)
        mine.append(timed(lambda seed=seed: ours(PASSES[-1], seed))[1:])
    agree = [correlation(maps[k], np.mean(maps[:k] + maps[k + 1 :], axis=0)) for k in range(options.rounds)]
    reference = np.mean(maps[1:], axis=0)
    reached = {n: [correlation(ours(n, seed), reference) for seed in range(SEEDS)] for n in PASSES}
    report(options.masks, xaitk, mine, agree, reached)


def report(
    masks: int,
    xaitk: list[list[float]],
    mine: list[tuple[float, ...]],
    agree: list[float],
    reached: dict[int, list[float]],
) -> None:
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(
        f"correlation with {len(xaitk) - 1} x {masks} masks of xaitk-saliency: {masks} of its own {_spread(agree)}"
    )
    for passes, values in reached.items():
        print(f"    {passes:5} passes of ours {_spread(values)}")
    enough = next(
        (n for n, values in reached.items() if statistics.median(values) >= statistics.median(agree)), None
    )
    for k, clock in enumerate(("wall", "processor")):
        speeds = [[masks / spent[k] for spent in xaitk], [PASSES[-1] / spent[k] for spent in mine]]
        ratios = [b / a for a, b in zip(*speeds, strict=True)]
        print(f"passes a second by {clock}: xaitk {_spread(speeds[0])}, ours {_spread(speeds[1])}")
        print(f"    ours / theirs {_spread(ratios)}")
        if enough:
            equal = [masks / enough * ratio for ratio in ratios]
            print(f"    for equal correlation ({enough} passes): {_spread(equal)} times faster (target 5)")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
