"""Regenerate `examples/`: eight phantoms of the seven regions, two of them DICOM, and what is true of them.

    make examples

The seeds were chosen by eye among ordinary studies, for pictures that explain themselves; how phantoms are as a
whole shows in docs/phantoms.md. The elbow is one study of two views, in the folders of MURA's unlabelled test
set, by which `mskscreen predict` knows that they belong together.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mskscreen.anatomy import JointType
from mskscreen.phantom.case import make_case
from mskscreen.phantom.dicom_output import Identity, Stored, write_dicom
from mskscreen.phantom.radiograph import Finished, finish, stored_bytes

EXAMPLES = Path(__file__).parents[1] / "examples"
LONG_SIDE = 512


class Example(NamedTuple):
    """One study of the examples; `kind` is None for a normal one, `stored` None for PNG."""

    name: str
    joint: JointType
    seed: int
    view: str
    kind: str | None = None
    stored: Stored | None = None


STUDIES = (
    Example("XR_ELBOW/patient00001/study1", JointType.ELBOW, 101, "AP", "fracture"),
    Example("finger", JointType.FINGER, 111, "PA"),
    Example("forearm", JointType.FOREARM, 102, "AP", "metalwork"),
    Example("hand", JointType.HAND, 101, "PA", "dislocation", Stored("CR", "MONOCHROME1", "window", 400, 3600)),
    Example("humerus", JointType.HUMERUS, 106, "AP", "lesion"),
    Example(
        "shoulder",
        JointType.SHOULDER,
        102,
        "AP internal rotation",
        None,
        Stored("DX", "MONOCHROME2", "lut", 300, 3500),
    ),
    Example("wrist", JointType.WRIST, 110, "PA"),
)


def main() -> None:
    """Write the images and `truth.csv`."""
    shutil.rmtree(EXAMPLES, ignore_errors=True)
    truth = []
    for number, example in enumerate(STUDIES, 1):
        case = make_case(
            example.seed,
            example.joint,
            view=example.view,
            abnormal=example.kind is not None,
            kind=example.kind,
        )
        images = list(finish(case, LONG_SIDE))
        paired = "/" in example.name
        for index, image in enumerate(images[: 2 if paired else 1], 1):
            suffix = "dcm" if example.stored else "png"
            file = f"{example.name}/image{index}.{suffix}" if paired else f"{example.name}.{suffix}"
            _write(EXAMPLES / file, image, example, number, case.facts["years"])
            finding = " ".join(str(case.facts[key]) for key in ("subkind", "bone") if key in case.facts)
            k = None if image.visibility is None else round(image.visibility, 1)
            truth.append(
                (file, example.joint.label, " + ".join(image.views), int(case.abnormal), finding, k, example.seed)
            )
    with (EXAMPLES / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "joint", "views", "abnormal", "finding", "visibility", "seed"))
        writer.writerows(truth)


def _write(path: Path, image: Finished, example: Example, number: int, years: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if example.stored is None:
        Image.fromarray(stored_bytes(image.display, image.inverted)).save(path, optimize=True)
        return
    identity = Identity(
        seed=example.seed,
        patient=number,
        study=1,
        number=1,
        joint=example.joint,
        views=image.views,
        laterality=image.laterality,
        years=years,
        kilovolts=image.kilovolts,
        pixel=image.pixel,
    )
    write_dicom(path, image.display, identity, example.stored)


if __name__ == "__main__":
    main()
