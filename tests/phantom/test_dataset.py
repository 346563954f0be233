"""A phantom data set on disk: layout, truth, and runs that are repeated, shared out, killed and refused."""

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

from mskscreen.anatomy import JointType
from mskscreen.errors import DataError
from mskscreen.lock import locked
from mskscreen.phantom.case import make_case
from mskscreen.phantom.dataset import make, occult_studies
from mskscreen.phantom.display import Family
from mskscreen.phantom.manifest import FILE, Row, read_manifest, summary, write_manifest
from mskscreen.phantom.plan import RENDERER, Recipe, plan
from mskscreen.phantom.radiograph import finish, stored_bytes

RECIPE = Recipe(studies=21, seed=4, long_side=128, pairs=True, dicom=True)

KILLED_AFTER_FIVE = """
import os, signal, sys
from pathlib import Path
from mskscreen.phantom.dataset import make
from mskscreen.phantom.plan import Recipe

left = 5

def advance(count):
    global left
    left -= count
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

make(Path(sys.argv[1]), Recipe(studies=21, seed=4, long_side=128, pairs=True, dicom=True), 1, advance)
"""

TOO_LARGE = """
import resource, signal, sys
from pathlib import Path
from mskscreen.errors import DataError
from mskscreen.phantom.dataset import make
from mskscreen.phantom.plan import Recipe

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
most, workers = int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    make(Path(sys.argv[1]), Recipe(studies=3, seed=4, long_side=256, dicom=True), workers)
except DataError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    assert make(folder, RECIPE).made == 21
    return folder


@pytest.fixture(scope="module")
def rows(folder) -> list[Row]:
    return read_manifest(folder)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def gray(path: Path) -> np.ndarray:
    with Image.open(path) as stored:
        assert stored.mode == "L"
        return np.asarray(stored)


def test_the_lists_of_mura_name_exactly_the_images_and_studies_of_the_tree(folder, rows):
    listed, labelled = [], {}
    for split in ("train", "valid"):
        listed += (folder / "MURA-v1.1" / f"{split}_image_paths.csv").read_text().split()
        with (folder / "MURA-v1.1" / f"{split}_labeled_studies.csv").open() as file:
            labelled |= dict(csv.reader(file))
    on_disk = {str(path.relative_to(folder)) for path in (folder / "MURA-v1.1").rglob("*.png")}
    assert len(listed) == len(set(listed))
    assert set(listed) == on_disk == {row.image for row in rows}
    assert labelled == {row.study: str(row.label) for row in rows}
    assert len(labelled) == 21
    for path, label in labelled.items():
        assert path.endswith("_positive/" if label == "1" else "_negative/")
    assert all(row.image.startswith(row.study) and f"/{row.split}/" in row.image for row in rows)


def test_joints_take_turns_and_patients_stay_in_one_split(rows):
    studies = {row.study: row for row in rows}
    assert set(Counter(row.joint for row in studies.values()).values()) == {3}
    splits = {}
    for row in rows:
        assert splits.setdefault(row.patient, row.split) == row.split
    assert {"train", "valid"} == set(splits.values())


def test_studies_of_one_patient_show_the_same_anatomy():
    slots = plan(Recipe(studies=400, seed=9))
    patients = Counter(slot.patient for slot in slots)
    shared = [slot for slot in slots if patients[slot.patient] > 1]
    assert 0.1 < len({slot.patient for slot in shared}) / len(patients) < 0.2
    assert len({(slot.patient, slot.joint, slot.number) for slot in slots}) == 400
    first, second = shared[:2]
    assert first.patient == second.patient
    builds = [make_case(slot.seed, slot.joint, patient_seed=slot.patient_seed).facts for slot in (first, second)]
    assert builds[0]["scale"] == builds[1]["scale"]
    assert builds[0]["laterality"] == builds[1]["laterality"]


def test_images_are_gray_with_the_long_side_asked_for(folder, rows):
    for row in rows:
        image = gray(folder / row.image)
        assert image.shape == (row.rows, row.columns)
        assert max(image.shape) == 128
        assert image.std() > 1


def test_masks_and_twins_belong_to_abnormal_images_and_lie_outside_the_class_folders(folder, rows):
    assert {bool(row.label) for row in rows} == {True, False}
    for row in rows:
        if not row.label:
            assert row.mask is row.twin is row.visibility is row.kind is None
            assert not row.occult
            continue
        assert row.kind
        assert row.visibility is not None
        assert row.occult == (row.visibility < 5)
        assert (row.mask is None) == (row.twin is None) == (row.visibility == 0)
        if row.mask is not None:
            mask = gray(folder / row.mask)
            assert set(np.unique(mask)) == {0, 255}
            assert mask.shape == gray(folder / row.twin).shape == (row.rows, row.columns)
            assert not row.mask.startswith("MURA")


def test_visible_twins_differ_most_inside_the_mask(folder, rows):
    shares = []
    for row in rows:
        if row.label and not row.occult:
            change = np.abs(gray(folder / row.image).astype(int) - gray(folder / row.twin))
            inside = gray(folder / row.mask) > 0
            shares.append(change[inside].mean() / max(change[~inside].mean(), 0.05))
    assert len(shares) >= 5
    assert np.median(shares) > 4


def test_a_twin_is_the_same_seed_without_the_abnormality(folder, rows):
    row = next(row for row in rows if row.twin is not None)
    slot = next(slot for slot in plan(RECIPE) if slot.seed == row.seed)
    case = make_case(slot.seed, slot.joint, abnormal=False, patient_seed=slot.patient_seed)
    number = int(Path(row.image).stem.removeprefix("image"))
    normal = list(finish(case, 128))[number - 1]
    difference = stored_bytes(normal.display, normal.inverted).astype(int) - gray(folder / row.twin)
    # Sums of path lengths in another order round differently.
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01


def test_dicom_files_carry_the_same_image_and_no_label(folder, rows):
    assert not any("positive" in row.dicom or "negative" in row.dicom for row in rows)
    shared = [row for row in rows if " + " in row.views]
    assert shared
    for row in rows[:6] + shared:
        dataset = pydicom.dcmread(folder / row.dicom)
        assert (dataset.Rows, dataset.Columns) == (row.rows, row.columns)
        assert ("PixelSpacing" in dataset) == ("KVP" in dataset) == (" + " not in row.views)
        # PS3.3 C.8.11.4 demands it of Digital X-Ray.
        assert "ImagerPixelSpacing" in dataset or dataset.Modality == "CR"
        assert dataset.ImageLaterality == row.laterality[0].upper()
    studies = {row.study: pydicom.dcmread(folder / row.dicom).StudyInstanceUID for row in rows}
    assert len(set(studies.values())) == 21


def test_every_exposure_is_in_the_manifest(rows):
    for row in rows:
        exposures = json.loads(row.exposures)
        assert [exposure["view"] for exposure in exposures] == row.views.split(" + ")
        assert all(45 < exposure["kilovolts"] < 83 for exposure in exposures)
        assert all(0 < exposure["exposed"] <= 1 for exposure in exposures)
        assert row.kilovolts == (exposures[0]["kilovolts"] if len(exposures) == 1 else None)
    assert {row.style for row in rows} == set(Family)
    assert {row.film for row in rows if row.style != Family.FILM} == {False}


def test_a_manifest_and_a_journal_from_before_the_exposures_can_be_read(folder, rows, tmp_path):
    new = ["kilovolts", "style", "film", "exposures"]
    pq.write_table(pq.read_table(folder / FILE).drop_columns(new), tmp_path / FILE)
    old = read_manifest(tmp_path)
    assert [row.image for row in old] == [row.image for row in rows]
    assert {(row.kilovolts, row.style, row.film, row.exposures) for row in old} == {(None, None, None, "[]")}


def test_a_folder_that_another_process_fills_is_left_alone(tmp_path):
    recipe = Recipe(studies=1, seed=4, long_side=64)
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(recipe)))
    half = tmp_path / "partial" / "0"
    half.mkdir(parents=True)
    with locked(tmp_path / "make.lock", "these phantoms"), pytest.raises(DataError, match="another process"):
        make(tmp_path, recipe)
    assert half.exists()
    assert make(tmp_path, recipe).made == 1


def test_of_two_that_start_in_one_empty_folder_the_first_alone_says_what_it_holds(tmp_path):
    recipe = Recipe(studies=1, seed=4, long_side=64)
    with locked(tmp_path / "make.lock", "these phantoms"):
        with pytest.raises(DataError, match="another process"):
            make(tmp_path, replace(recipe, seed=5))
        assert [path.name for path in tmp_path.iterdir()] == ["make.lock"]
    half = tmp_path / ".recipe.123-abcd.partial.json"
    half.write_text("{")
    assert make(tmp_path, recipe).made == 1
    assert not half.exists()
    with pytest.raises(DataError, match="was made with seed 4, not 5"):
        make(tmp_path, replace(recipe, seed=5))


@pytest.mark.parametrize("named", ["manifest", "journal"])
def test_a_run_killed_at_its_last_steps_leaves_nothing_that_the_next_does_not_take_away(folder, tmp_path, named):
    other = tmp_path / "set"
    shutil.copytree(folder, other)
    rows = [asdict(row) for row in read_manifest(folder)]
    by_study = [
        [row for row in rows if row["study"] == study] for study in dict.fromkeys(r["study"] for r in rows)
    ]
    lines = [json.dumps({"index": index, "rows": found}) for index, found in enumerate(by_study)]
    (other / "journal.jsonl").write_text("\n".join([*lines, '{"index": 3}', "[]", "[" * 5000]) + "\n")
    if named == "journal":  # before the manifest is in place
        (other / FILE).rename(other / ".manifest.12-ab.partial.parquet")
        (other / "MURA-v1.1" / ".train_image_paths.12-ab.partial.csv").write_text("half")
    outcome = make(other, RECIPE)
    assert (outcome.made, outcome.found) == (0, 21)
    assert digest(other) == digest(folder)


def test_a_finished_folder_needs_no_lock(folder):
    with locked(folder / "make.lock", "these phantoms"):
        assert make(folder, RECIPE).found == 21


def test_beyond_512_pixels_images_grow_and_visibility_does_not():
    case = make_case(5, JointType.FOREARM, kind="metalwork", long_side=700)
    small, large = (next(finish(case, side)) for side in (350, 700))
    assert max(large.display.shape) == 700
    assert large.mask.mean() == pytest.approx(small.mask.mean(), rel=0.1)
    assert large.visibility == pytest.approx(small.visibility, rel=0.4)


def test_a_second_run_does_nothing(folder):
    before = digest(folder)
    outcome = make(folder, RECIPE)
    assert (outcome.made, outcome.found) == (0, 21)
    assert digest(folder) == before


def test_two_workers_write_the_same_bytes(folder, tmp_path):
    make(tmp_path / "set", RECIPE, workers=2)
    assert digest(tmp_path / "set") == digest(folder)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(folder, tmp_path):
    other = tmp_path / "set"
    killed = subprocess.run([sys.executable, "-c", KILLED_AFTER_FIVE, other], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (other / "manifest.parquet").exists()
    with (other / "journal.jsonl").open("a") as journal:
        journal.write('{"index": 7, "rows": [{"ima')
    cut = other / "partial" / "6" / "image"
    cut.mkdir(parents=True)
    (cut / "image1.png").write_bytes(b"half an image")
    outcome = make(other, RECIPE)
    assert (outcome.made, outcome.found) == (16, 5)
    assert digest(other) == digest(folder)


@pytest.mark.parametrize(("field", "value"), [("studies", 22), ("seed", 5), ("long_side", 96), ("pairs", False)])
def test_a_folder_made_with_other_parameters_is_refused(folder, field, value):
    with pytest.raises(DataError, match=f"was made with {field} .*, not {value}"):
        make(folder, Recipe(**{**RECIPE.__dict__, field: value}))


@pytest.mark.parametrize("named", [{}, {"renderer": 1}])
def test_a_folder_of_another_renderer_is_not_continued_and_one_that_names_none_is_of_the_first(tmp_path, named):
    note = {key: value for key, value in asdict(RECIPE).items() if key != "renderer"} | {"joints": []}
    (tmp_path / "recipe.json").write_text(json.dumps(note | named))
    write_manifest(tmp_path / FILE, [])
    assert make(tmp_path, replace(RECIPE, renderer=1)).made == 0
    with pytest.raises(DataError, match=r"was made with revision 1 of the renderer, not 2"):
        make(tmp_path, replace(RECIPE, renderer=2))
    assert read_manifest(tmp_path) == []


def test_a_recipe_names_the_renderer(folder):
    assert json.loads((folder / "recipe.json").read_text())["renderer"] == RENDERER


def test_the_renderer_draws_what_its_revision_drew(folder, rows, tmp_path):
    """Means of 8 x 8 areas in 256ths of a level, a line an image; processors differ in the last bit of a float."""
    images = [Image.open(folder / row.image).convert("F").resize((8, 8), Image.Resampling.BOX) for row in rows]
    found = np.rint(256 * np.stack(images)).astype(np.uint16).reshape(len(rows), -1)
    name = f"areas_of_renderer_{RENDERER}.png"
    Image.fromarray(found).save(tmp_path / name)
    committed = Path(__file__).with_name(name)
    remedy = f"after a change of pixels raise RENDERER and commit {tmp_path / name} as {committed}"
    assert committed.exists(), remedy
    assert np.abs(np.int32(found) - np.asarray(Image.open(committed))).max() <= 25, remedy


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        make(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("place", ["file", "file/set", "n" * 300])
def test_a_place_that_cannot_be_written_is_one_sentence_that_does_not_say_again(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the phantoms to .*; choose another folder$"):
        make(tmp_path / place, RECIPE)


@pytest.mark.parametrize(("most", "workers"), [(2000, 1), (60_000, 2)], ids=["at a PNG", "at a DICOM file"])
def test_a_disk_without_room_is_one_sentence_and_can_be_taken_up_again(tmp_path, most, workers):
    words = [sys.executable, "-c", TOO_LARGE, tmp_path / "set", str(most), str(workers)]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("cannot write the phantoms")
    assert run.stdout.endswith("no room is left; make room and run the same command again\n")
    assert make(tmp_path / "set", Recipe(studies=3, seed=4, long_side=256, dicom=True)).made >= 1


@pytest.mark.parametrize(
    "wrong", [{"studies": 0}, {"seed": -1}, {"long_side": 20}, {"long_side": 9000}, {"joints": ("knee",)}]
)
def test_impossible_recipes_are_refused(wrong):
    with pytest.raises(DataError):
        Recipe(**{"studies": 1, "seed": 0, **wrong})


def test_occult_studies_are_listed_and_can_be_kept_apart(folder, rows, tmp_path):
    hidden = occult_studies(rows)
    assert (folder / "occult_studies.csv").read_text().split() == [f"{study},1" for study in hidden]
    assert hidden
    make(tmp_path / "set", Recipe(studies=21, seed=4, long_side=128, occult_apart=True))
    apart = read_manifest(tmp_path / "set")
    moved = {row.study for row in apart if row.study.startswith("occult/")}
    assert {study.removeprefix("occult/") for study in moved} == set(hidden)
    listed = "".join(path.read_text() for path in (tmp_path / "set" / "MURA-v1.1").glob("*_labeled_studies.csv"))
    assert len(listed.split()) == 21 - len(hidden)
    assert not any(study in listed for study in hidden)


def test_the_summary_counts_every_image_once(rows):
    lines = {line["kind"]: line for line in summary(rows)}
    assert lines["abnormal"]["images"] + lines["normal"]["images"] == len(rows)
    assert (
        sum(line["images"] for kind, line in lines.items() if kind not in ("abnormal", "normal"))
        == (lines["abnormal"]["images"])
    )
    severities = [json.loads(row.parameters) for row in rows if row.kind == "fracture"]
    assert all(0 <= severity.get("displacement_widths", 0) < 2 for severity in severities)
