"""How often the flags of the audit are right: phantoms whose truth is known, and copies spoilt on purpose.

    python benchmarks/audit_flags.py             # makes 150 phantom studies in a temporary folder
    python benchmarks/audit_flags.py FOLDER      # any folder of `mskscreen phantom make` instead
    python benchmarks/audit_flags.py --model demo          # also images on their side, by the model's joint head

Phantoms are not radiographs: the figures say that the flags work, not how often they will on MURA. Measured on 23
November 2026 on `mskscreen phantom make FOLDER --studies 60 --seed 11`; every image is taken in both polarities:

    inverted: raised for 68% of 113 that are, 8% of 113 that are not
    composite: raised for 100% of 4 that are, 6% of 109 that are not
    near duplicates, JPEG of quality 40: found 97% of 113
    near duplicates, half size: found 97% of 113
    near duplicates, contrast less by 30 %: found 97% of 113
    near duplicates, contrast more by 30 %: found 93% of 113
    near duplicates, gamma 1.3: found 97% of 113
    near duplicates, cropped by 2 % a side: found 64% of 113
    near duplicates: 0 of 6328 pairs, those of different studies
    rotated, by demo: right turn for 2% of 84 that are, raised for 3% of 29 that are not

The demonstration model was trained on turned images, so it recognises them as they are: a miss, and a stated one.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mskscreen.data.audit.duplicates import near_pairs
from mskscreen.data.audit.measure import THUMB, flags_of, measure
from mskscreen.data.tree import Tree
from mskscreen.phantom.manifest import Row, read_manifest


def _crop(image: Image.Image) -> Image.Image:
    across, down = image.width // 50, image.height // 50
    return image.crop((across, down, image.width - across, image.height - down))


# Copies that are still the same radiograph, and how they are stored.
COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, Any]]] = {
    "JPEG of quality 40": (lambda image: image, {"format": "JPEG", "quality": 40}),
    "half size": (lambda image: image.resize((image.width // 2, image.height // 2)), {"format": "PNG"}),
    "contrast less by 30 %": (lambda image: image.point([round(v * 0.7) for v in range(256)]), {"format": "PNG"}),
    "contrast more by 30 %": (
        lambda image: image.point([min(255, round(v * 1.3)) for v in range(256)]),
        {"format": "PNG"},
    ),
    "gamma 1.3": (
        lambda image: image.point([round(255 * (v / 255) ** 1.3) for v in range(256)]),
        {"format": "PNG"},
    ),
    "cropped by 2 % a side": (_crop, {"format": "PNG"}),
}


def measured(folder: Path, image: Image.Image, **how: Any) -> dict[str, Any]:
    """Measures of an image that is not on disk."""
    image.save(folder / "copy", **(how or {"format": "PNG"}))
    return measure(Tree(folder), "copy")


def share(raised: list[bool]) -> str:
    """Share and number, as in `81 % of 288`."""
    return f"{np.mean(raised):.0%} of {len(raised)}" if raised else "none"


def flags(folder: Path, rows: list[Row], here: Path) -> list[dict[str, Any]]:
    """Print how often `inverted` and `composite` are raised; returns the measures of the images as they are."""
    inverted: dict[bool, list[bool]] = {True: [], False: []}
    composite: dict[bool, list[bool]] = {True: [], False: []}
    plain = []
    for row in rows:
        image = Image.open(folder / row.image)
        plain.append(measured(here, image))
        other = measured(here, image.point([255 - v for v in range(256)]))
        for measures, truth in ((plain[-1], row.inverted), (other, not row.inverted)):
            inverted[truth].append("inverted" in flags_of(measures))
        composite[" + " in row.views].append("composite" in flags_of(plain[-1]))
    for name, found in (("inverted", inverted), ("composite", composite)):
        print(f"{name}: raised for {share(found[True])} that are, {share(found[False])} that are not")
    return plain


def duplicates(folder: Path, rows: list[Row], plain: list[dict[str, Any]], here: Path) -> None:
    """Print how many copies are found, and how many pairs of different studies are taken for copies."""
    for name, (change, how) in COPIES.items():
        found = []
        for row, measures in zip(rows, plain, strict=True):
            pair = measures, measured(here, change(Image.open(folder / row.image)), **how)
            found.append("near-constant" not in flags_of(measures) and bool(pairs(list(pair))))
        print(f"near duplicates, {name}: found {share(found)}")
    apart = [(i, j) for i, j in pairs(plain) if rows[i].study != rows[j].study]
    print(f"near duplicates: {len(apart)} of {len(rows) * (len(rows) - 1) // 2} pairs, those of different studies")


def pairs(measures: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Pairs of near duplicates among measured images."""
    hashes = np.array([int(item["hash"], 16) for item in measures], np.uint64)
    thumbs = np.frombuffer(b"".join(base64.b64decode(item["thumb"]) for item in measures), np.uint8)
    return list(near_pairs(hashes, thumbs.reshape(-1, THUMB**2).astype(np.float32)))


def turns(folder: Path, rows: list[Row], model: str, here: Path) -> None:
    """Print how often an image on its side is found by the joint head of a model."""
    from mskscreen.cli.data import joint_head_of
    from mskscreen.data.audit.rotation import find_turns
    from mskscreen.data.journal import Journal
    from mskscreen.data.manifest import Manifest

    truth = [i % 4 for i in range(len(rows))]
    for number, (row, turn) in enumerate(zip(rows, truth, strict=True)):
        image = np.rot90(np.asarray(Image.open(folder / row.image)), -turn)
        Image.fromarray(image).save(here / f"{number}.png")
    listed = [{"image": f"{number}.png", "joint": row.joint} for number, row in enumerate(rows)]
    manifest = Manifest.from_rows(here, listed, "phantoms")
    head, _ = joint_head_of(model)
    found = find_turns(manifest, [{"error": None}] * len(rows), head, Journal(here / "turns", model))
    right = [turn == there for turn, there in zip(found, truth, strict=True) if there]
    false = [bool(turn) for turn, there in zip(found, truth, strict=True) if not there]
    print(f"rotated, by {model}: right turn for {share(right)} that are, raised for {share(false)} that are not")


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        folder = options.folder or here / "phantoms"
        if options.folder is None:
            from mskscreen.phantom.dataset import make
            from mskscreen.phantom.plan import Recipe

            make(folder, Recipe(150, seed=1), 1)
        rows = read_manifest(folder)
        plain = flags(folder, rows, here)
        duplicates(folder, rows, plain, here)
        if options.model:
            turns(folder, rows, options.model, here)


if __name__ == "__main__":
    main()
