"""What can be told without looking at the anatomy: the label from the borders, the place from region and view.

    python benchmarks/phantom_shortcuts.py [STUDIES] [WORKERS]

Makes a set of the default recipe at 256 pixels, trains the linear model of `mskscreen.phantom.shortcuts` on border
statistics (asked for: AUROC <= 0.55) and computes the image-free location prior of `mskscreen.phantom.priors` with
the pointing game's tolerance of 3 % of the long side (asked for: <= 30 % hits).

2026-11-22, 2,100 studies, 4,260 images:

    border statistics: AUROC 0.505, standard error 0.013
    fixed place: 0.150 of 1,478 visible masks (elbow 0.198, finger 0.113, forearm 0.185, hand 0.024, humerus 0.206,
        shoulder 0.202, wrist 0.092)
    fractures displaced by more than half the width: 0.227 of 414; median visible k 14.0; occult 0.229 of images

2026-11-27, the 2,800 test studies of the demonstration model (512 pixels, 5,641 images), by `mskscreen phantom`
`shortcuts` and `prior`: AUROC 0.515, standard error 0.011; fixed place 0.150 of 2,177 visible masks.
"""

import sys
import tempfile
from pathlib import Path

from mskscreen.phantom.dataset import make
from mskscreen.phantom.manifest import summary
from mskscreen.phantom.plan import Recipe
from mskscreen.phantom.priors import location_prior
from mskscreen.phantom.shortcuts import border_auroc


def main() -> None:
    """Print both figures and the summary of the set they come from."""
    studies, workers = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 2100), (2, 2)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "set"
        rows = make(folder, Recipe(studies, seed=2024, long_side=256), workers).rows
        print("border statistics:", border_auroc(folder, rows))
        for line in location_prior(folder, rows):
            print("fixed place:", line)
        for line in summary(rows):
            print(line)


if __name__ == "__main__":
    main()
