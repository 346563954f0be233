"""A small MURA tree of PNG and DICOM files that carry names wherever a file can, predicted with a tiny model."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.table import Table
from mskscreen.inference import Screener
from mskscreen.review.pack import Design, make_pack

JOINTS = ("XR_HAND", "XR_WRIST", "XR_ELBOW")


class Study(NamedTuple):
    root: Path
    cases: Cases
    secrets: set[str]


@pytest.fixture(scope="session")
def screener(model: Path) -> Screener:
    return Screener.load(model, engine="onnxruntime")


@pytest.fixture(scope="session")
def make_study(
    screener: Screener, write_dicom: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Study]:
    """Write 12 patients of one study each, half abnormal, every third as DICOM, and predict them.

    `swap` exchanges the labels and `first` renumbers the patients; the pixels stay what they are.
    """

    def make(*, swap: bool = False, first: int = 31000, **elements: Any) -> Study:
        root = tmp_path_factory.mktemp("tree")
        secrets = {"positive", "negative", str(root)}
        for k in range(12):
            patient = f"patient{first + k}"
            label = "negative" if (k % 2 == 0) ^ swap else "positive"
            folder = root / "MURA-v1.1" / "valid" / JOINTS[k % 3] / patient / f"study1_{label}"
            secrets |= {patient, f"SURNAME{first + k}", f"ID-{first + k}", JOINTS[k % 3]}
            if k % 3 == 0:
                write_dicom(
                    folder / "image1.dcm",
                    seed=k,
                    PatientName=f"SURNAME{first + k}^GIVEN",
                    PatientID=f"ID-{first + k}",
                    StudyInstanceUID=f"1.2.3.{first + k}",
                    WindowCenter=2048,
                    WindowWidth=4096,
                    **elements,
                )
                secrets.add(f"1.2.3.{first + k}")
                continue
            folder.mkdir(parents=True)
            for view in range(1 + k % 2):
                about = PngInfo()
                about.add_text("Patient", f"SURNAME{first + k} ID-{first + k} {label}")
                pixels = np.random.default_rng((k, view)).integers(0, 40 + 15 * k, (40, 50))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"image{view + 1}.png", pnginfo=about)
        # A threshold at which the tiny model calls some images normal and some abnormal.
        table = replace(Table.of(screener.predict(root)), threshold=0.225)
        return Study(root, join(table, labels_from_paths(table)).cases(), secrets)

    return make


@pytest.fixture(scope="session")
def study(make_study: Callable[..., Study]) -> Study:
    return make_study()


@pytest.fixture(scope="session")
def pack(study: Study, screener: Screener, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of eight cases, a quarter of them shown twice, for three readers."""
    out = tmp_path_factory.mktemp("packs") / "pack"
    make_pack(out, out.with_name("pack.key.json"), study.cases, screener, Design(8, 3, 0.25, 5))
    return out


@pytest.fixture(scope="session")
def fill() -> Callable[..., list[Path]]:
    """Copy the empty forms of a pack to a folder with answers: `answer(reader, phase, code)` gives the columns."""

    def fill(pack: Path, folder: Path, answer: Callable[[str, str, str], dict[str, str]]) -> list[Path]:
        folder.mkdir(exist_ok=True)
        filled = []
        for form in sorted(pack.glob("*/forms/*.csv"), key=lambda path: path.name):
            with form.open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            for row in rows:
                row |= {k: v for k, v in answer(row["reader"], row["phase"], row["case"]).items() if k in row}
            filled.append(folder / form.name)
            with filled[-1].open("w", newline="") as stream:
                writer = csv.DictWriter(stream, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
        return filled

    return fill
