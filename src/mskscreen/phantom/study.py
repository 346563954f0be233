"""One study of phantoms on disk: images, masks, twins and DICOM files, put in place all at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from mskscreen.phantom.case import Case, make_case
from mskscreen.phantom.dicom_output import Identity, sample_stored, write_dicom
from mskscreen.phantom.manifest import Row
from mskscreen.phantom.plan import Recipe, Slot
from mskscreen.phantom.png import png_bytes
from mskscreen.phantom.radiograph import Finished, finish, stored_bytes
from mskscreen.phantom.seeds import stream
from mskscreen.pixels.memory import keep_freed_memory

ROOT = "MURA-v1.1"
APART = "occult"
PARTIAL = "partial"
_ANATOMY = ("years", "scale", "density", "cortex", "build", "fat", "digit")
_OWN_COLUMN = ("joint", "kind", "subkind", "bone", "variants", "laterality", "age_group")


def write_study(folder: str, recipe: Recipe, slot: Slot) -> tuple[int, list[Row]]:
    """Render the study of `slot` and put it in place under `folder`; returns its index and rows, one an image."""
    keep_freed_memory()
    root = Path(folder)
    case = make_case(slot.seed, joint=slot.joint, patient_seed=slot.patient_seed)
    images = list(finish(case, recipe.long_side))
    occult = case.abnormal and all(image.occult for image in images)
    places = _places(recipe, slot, case.abnormal, occult)
    work = root / PARTIAL / str(slot.index)
    shutil.rmtree(work, ignore_errors=True)
    rows = [
        _write_image(work, places, recipe, slot, case, number, image) for number, image in enumerate(images, 1)
    ]
    for name, place in places.items():
        if (work / name).exists():
            target = root / place
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            (work / name).rename(target)
    work.rmdir()
    return slot.index, rows


def _places(recipe: Recipe, slot: Slot, abnormal: bool, occult: bool) -> dict[str, str]:
    """Folders of the parts of a study; only the tree that MURA defines carries the label in its name."""
    tree = f"{APART}/{ROOT}" if occult and recipe.occult_apart else ROOT
    study = f"{slot.joint.codes.mura}/patient{slot.patient:05d}/study{slot.number}"
    labelled = f"{slot.split}/{study}_{'positive' if abnormal else 'negative'}"
    return {
        "image": f"{tree}/{labelled}",
        "mask": f"masks/{labelled}",
        "twin": f"twins/{labelled}",
        "dicom": f"dicom/{study}",
    }


def _write_image(
    work: Path, places: dict[str, str], recipe: Recipe, slot: Slot, case: Case, number: int, image: Finished
) -> Row:
    written = {"image": _png(work / "image", number, stored_bytes(image.display, image.inverted))}
    if image.mask is not None:
        written["mask"] = _png(work / "mask", number, image.mask.astype(np.uint8) * np.uint8(255))
    if recipe.pairs and image.twin is not None:
        written["twin"] = _png(work / "twin", number, stored_bytes(image.twin, image.inverted))
    if recipe.dicom:
        written["dicom"] = f"image{number}.dcm"
        (work / "dicom").mkdir(parents=True, exist_ok=True)
        stored = sample_stored(stream(slot.seed, "dicom"))
        if image.pixel is None:
            stored = replace(stored, modality="CR")  # DX demands the one spacing (PS3.3 C.8.11.4)
        write_dicom(work / "dicom" / written["dicom"], image.display, _identity(slot, case, number, image), stored)
    paths = {name: f"{places[name]}/{file}" for name, file in written.items()}
    facts = dict(case.facts)
    anatomy = {"seed": slot.patient_seed} | {name: facts.pop(name) for name in _ANATOMY if name in facts}
    truth = {name: value for name, value in facts.items() if name not in _OWN_COLUMN}
    return Row(
        image=paths["image"],
        mask=paths.get("mask"),
        twin=paths.get("twin"),
        dicom=paths.get("dicom"),
        study=f"{places['image']}/",
        patient=f"patient{slot.patient:05d}",
        joint=slot.joint.label,
        views=" + ".join(image.views),
        split=slot.split,
        label=int(case.abnormal),
        kind=facts.get("kind"),
        subkind=facts.get("subkind"),
        bone=facts.get("bone"),
        parameters=json.dumps(truth),
        variants=", ".join(facts["variants"]),
        laterality=facts["laterality"],
        age_group=facts["age_group"],
        anatomy=json.dumps(anatomy),
        visibility=None if image.visibility is None else round(image.visibility, 2),
        occult=image.occult,
        inverted=image.inverted,
        rows=image.display.shape[0],
        columns=image.display.shape[1],
        seed=slot.seed,
        kilovolts=None if image.kilovolts is None else round(image.kilovolts, 1),
        style=image.style,
        film=image.film,
        exposures=json.dumps(image.exposures),
    )


def _identity(slot: Slot, case: Case, number: int, image: Finished) -> Identity:
    return Identity(
        seed=slot.seed,
        patient=slot.patient,
        study=slot.number,
        number=number,
        joint=slot.joint,
        views=image.views,
        laterality=image.laterality,
        years=case.facts["years"],
        kilovolts=image.kilovolts,
        pixel=image.pixel,
    )


def _png(folder: Path, number: int, array: np.ndarray) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"image{number}.png"
    (folder / name).write_bytes(png_bytes(array))
    return name
