"""Phantoms made per second and core, PNG files, masks, twins for visibility and all.

    OMP_NUM_THREADS=1 python benchmarks/phantom.py [STUDIES]

Renders studies of the default recipe (512 pixels) in one process on one thread and counts the images that land
in the tree; the twins of abnormal images are rendered too but not counted. The first studies, which compile and
load, are not timed. Time is that of the processor, so that a busy machine is not charged to the code, beside
that of the wall. The second line renders the same at 128 pixels: what does not depend on the pixels.

2026-11-27, one core of an AMD EPYC beside little other work, 42 studies, median of three passes:

    512 px: 16.0 images (13.1 to 17.4) per second of processor time, 16.0 (13.1 to 17.3) of wall time
    128 px: 54.1 images (46.1 to 54.4)

Asked for are 20 images at 512 px, so this misses by a fifth (14.8 on 2026-11-22, before twins shared noise and the
paths of solids, scatter was reckoned on block means and PNG files were written faster). Of the 64 ms of an image
tracing then took 31, beam and detector 10, display 6, the case itself 6, PNG 4. Every abnormal image costs a
second exposure, its twin, which visibility needs: counting those, about 23 exposures a second are finished.

Since rays leap over empty blocks, the same day, slower cores, old and new at once on one each, 7 studies: 12.9
images (12.2 to 13.7) per second of processor time against 12.1 (11.7 to 12.3), 1.07 times.

The target is 2.5 times what the first sketch of the renderer, which made no twins, was measured at. In turn on
one Zen 3 core beside other work (2026-11-28, six rounds of 28 images each): the sketch 4.0 images a second of
processor time (3.0 to 4.9), ours 8.2 (5.0 to 10.3), 1.9 times (1.7 to 3.3); counting the twins of abnormal images
2.8 times (2.7 to 4.1). Tried there without gain: interpolating in 32 bits, in packed pairs and in tiles, and huge
pages.

The same day and core, old and new in turn, study by study, eight rounds of 43 images, the machine crowded: of 92
ms an image 83 are left, 1.10 times as fast (1.08 to 1.18), with the same pixels. Saved were products, remainders
and padding, rays where no block and no fragment lies, powers of equal pixels, and memory given back. Of what is
left interpolation takes a quarter and the case itself a tenth; `exp` (2.2 ns a pixel and bin), `pow` (7 ns) and
normal numbers (8 ns) are bound to their last bit. Without gain: testing every second or third block only, and
Beer-Lambert only where something lies in the beam.

With that, on quiet cores of this machine: 13.4 images (12.6 to 14.7) per second of processor time at 512 px, 43.5
(39.3 to 44.0) at 128; in turn with the sketch (5.2 images, 3.7 to 6.3) 2.4 times (2.0 to 3.0), 3.6 times (3.1 to
4.1) with the twins.

Later that day what the bones of a view have in common is reckoned at once, scenes are kept, and which blocks rays
may pass is counted in one compiled pass. Old and new in turn: 1.03 times as fast (1.02 to 1.04, six rounds of 115
images); what each process must find out of every bone once took 3.7 ms an image of the first 170 and takes 1.5;
13.0 and 13.3 images a second (12.6 to 14.5) where the same hour gave the old code 12.8. In turn with the sketch,
whose first round, like ours, loads and is left out: 2.6 times (2.1 to 3.4, five rounds of 28 images each, quiet
cores) and 3.0 times (2.4 to 3.3, twelve rounds in a slower hour): 2.5 met at the median. Without gain: a range of
slices for each tile of the detector, tile after tile, and leaps that are as long as the blocks ahead allow: a
third of the time of casting is waiting for memory.
"""

import statistics
import sys
import tempfile
import time

from mskscreen.phantom.plan import Recipe, plan
from mskscreen.phantom.study import write_study

WARM_UP = 14
PASSES = 3


def rates(recipe: Recipe) -> tuple[float, float]:
    """Images a second of processor time and of wall time."""
    slots = plan(recipe)
    with tempfile.TemporaryDirectory() as folder:
        for slot in slots[:WARM_UP]:
            write_study(folder, recipe, slot)
        processor, wall = time.process_time(), time.perf_counter()
        images = sum(len(write_study(folder, recipe, slot)[1]) for slot in slots[WARM_UP:])
        return images / (time.process_time() - processor), images / (time.perf_counter() - wall)


def main() -> None:
    """Print the median and range of a few passes."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 84
    for long_side in (512, 128):
        measured = [rates(Recipe(WARM_UP + studies, seed, long_side)) for seed in range(PASSES)]
        for name, values in zip(("processor", "wall"), zip(*measured, strict=True), strict=True):
            low, middle, high = min(values), statistics.median(values), max(values)
            print(f"{long_side} px, per second of {name} time: {middle:.1f} images ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
