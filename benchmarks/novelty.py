"""How often a model says "not like the training data" of phantoms, and of what is no radiograph of an arm.

    pip install scikit-image            # for its photographs; without it they are left out
    mskscreen phantom make fresh --studies 280 --seed 20261231
    python benchmarks/novelty.py --phantoms fresh --radiographs folder/of/radiographs

Non-radiographs are made here from a seed: noise, gradients, checkerboards, pages of text; to these come the
photographs and textures that scikit-image carries, in gray, and two radiographs of pydicom-data. Asked for
are at most 2 % of fresh phantoms and at least 90 % of the rest. Radiographs of one's own are counted where given.

Measured on 2026-11-28 on the bundled model: fresh phantoms 4 of 564, 0.007 (0.003 to 0.018); noise, gradients,
pages of text 40 of 40 each, checkerboards 35 of 40; photographs 24 of 25, 0.960 (0.805 to 0.993); the chest
radiograph and the lower leg; 1 of 3 radiographs of real wrists.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from pydicom.data import get_testdata_file

from mskscreen import Screener
from mskscreen.evaluation.intervals import wilson
from mskscreen.phantom.manifest import read_manifest
from mskscreen.predictions import FLAG_NOVEL

SIZE, EACH = (512, 400), 40
OTHERS = {"chest radiograph": "RG1_UNCR.dcm", "lower leg": "RG3_UNCR.dcm"}
_WORDS = (
    "patient",
    "was",
    "referred",
    "for",
    "a",
    "radiograph",
    "of",
    "which",
    "nothing",
    "is",
    "left",
    "but",
    "text",
)


def noise(rng: np.random.Generator) -> Image.Image:
    """White noise, or clouds of it, of any brightness."""
    values = rng.normal(rng.uniform(60, 200), rng.uniform(15, 80), SIZE[::-1])
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    radius = float(rng.choice([0, 0, 2, 8]))
    if not radius:
        return image
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), float)
    return Image.fromarray(np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth)))


def gradient(rng: np.random.Generator) -> Image.Image:
    """A ramp in one direction, or rings around a point."""
    down, across = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] / max(SIZE)
    angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1, 2)
    ramp = np.cos(angle) * across + np.sin(angle) * down
    values = ramp if rng.random() < 0.5 else np.hypot(across - place[0], down - place[1])
    return Image.fromarray(np.uint8(255 * (values - values.min()) / np.ptp(values)))


def checkerboard(rng: np.random.Generator) -> Image.Image:
    """Squares of 8 to 80 pixels."""
    side, levels = int(rng.integers(8, 80)), np.sort(rng.integers(0, 256, 2))
    down, across = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] // side
    return Image.fromarray(levels[(down + across) % 2].astype(np.uint8))


def text(rng: np.random.Generator) -> Image.Image:
    """A page of words, dark on light or light on dark."""
    page = Image.new("L", SIZE, 255)
    draw, height = ImageDraw.Draw(page), int(rng.integers(11, 26))
    for top in range(10, SIZE[1], int(1.4 * height)):
        line = " ".join(rng.choice(_WORDS, int(rng.integers(3, 14))))
        draw.text((12, top), line, fill=0, font=ImageFont.load_default(height))
    return page if rng.random() < 0.7 else Image.eval(page, lambda value: 255 - value)


def photographs() -> Iterator[Image.Image]:
    """What scikit-image carries within its package."""
    if importlib.util.find_spec("skimage") is None:
        return
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".jpg", ".gif"):
            image = Image.open(path)
            if min(image.size) >= 128:
                yield image.convert("L")


MADE: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "noise": noise,
    "gradients": gradient,
    "checkerboards": checkerboard,
    "pages of text": text,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=Path, help="folder of `mskscreen phantom make`")
    parser.add_argument("--radiographs", type=Path, nargs="*", default=[], help="files or folders of your own")
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    screener = Screener.load(options.model, precision="f32")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        groups: dict[str, list[Path]] = {}
        if options.phantoms:
            groups["fresh phantoms"] = [options.phantoms / row.image for row in read_manifest(options.phantoms)]
        drawn = {kind: [make(rng) for _ in range(EACH)] for kind, make in MADE.items()}
        for kind, images in (drawn | {"photographs": list(photographs())}).items():
            groups[kind] = []
            for number, image in enumerate(images):
                groups[kind].append(Path(name) / f"{kind}-{number}.png")
                image.save(groups[kind][-1])
        groups |= {kind: [Path(str(get_testdata_file(file)))] for kind, file in OTHERS.items()}
        groups["your radiographs"] = options.radiographs
        for kind, files in groups.items():
            rows = [row for row in (screener.predict(files) if files else ()) if row.error is None]
            flagged = sum(FLAG_NOVEL in row.flags for row in rows)
            low, high = wilson(flagged, len(rows)) or (0.0, 1.0)
            if rows:
                print(
                    f"{kind:18} {flagged:4} of {len(rows):4}  {flagged / len(rows):.3f} ({low:.3f} to {high:.3f})"
                )


if __name__ == "__main__":
    main()
