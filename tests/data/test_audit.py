"""The audit finds what was put wrong on purpose, and little else."""

import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from image_files import copy_of_mura, limb
from mura_lists import Study, write_lists
from PIL import Image, ImageOps

from mskscreen.anatomy import JOINT_LABELS, NOT_FOR_DIAGNOSIS, JointType
from mskscreen.data.audit.duplicates import exact_pairs, groups, near_pairs
from mskscreen.data.audit.noise import label_noise
from mskscreen.data.audit.result import read_audit
from mskscreen.data.audit.rotation import find_turns
from mskscreen.data.audit.run import Options, audit
from mskscreen.data.journal import Journal
from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import index_mura
from mskscreen.data.sources import read_source
from mskscreen.errors import DataError
from mskscreen.predictions import Prediction, Predictions


def flags(folder) -> dict[str, set[int]]:
    columns, _, _ = read_audit(folder / "audit.parquet")
    found: dict[str, set[int]] = {}
    for row, names in enumerate(columns["flags"]):
        for name in names:
            found.setdefault(name, set()).add(row)
    return found


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> Manifest:
    """Forty studies of one image, twelve of them spoilt in a way each."""
    root = tmp_path_factory.mktemp("spoilt")
    studies = [Study("XR_HAND", f"patient{i:05d}", 1, i % 2, 1) for i in range(36)]
    studies += [Study("XR_HAND", f"patient{i:05d}", 1, i % 2, 1, "valid") for i in range(11190, 11194)]
    folder = write_lists(root, studies)
    paths = [folder / study.files[0] for study in studies]
    image = [Image.fromarray(limb(i, 240, 200)) for i in range(40)]
    for path, picture in zip(paths, image, strict=True):
        picture.save(path)
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[: len(data) // 2])
    paths[1].write_bytes(b"GIF89a")
    image[2].resize((60, 72)).save(paths[2])
    Image.new("L", (200, 240), 90).save(paths[3])
    ImageOps.invert(image[4]).save(paths[4])
    Image.fromarray(np.hstack([limb(5, 240, 160), np.zeros((240, 16), np.uint8), limb(50, 240, 160)])).save(
        paths[5]
    )
    colour = np.stack([limb(6, 240, 200)] * 3, axis=-1)
    colour[40:90, 40:90, 0] = 255
    Image.fromarray(colour).save(paths[6])
    image[10].convert("RGB").save(paths[7])
    image[11].resize((120, 144)).save(paths[8], "JPEG", quality=40)
    image[12].point(lambda value: value * 0.8).save(paths[36])
    paths[9].unlink()
    return index_mura(folder)[0]


@pytest.fixture(scope="module")
def audited(spoilt, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    audit(spoilt, folder)
    return folder


def test_single_images(audited):
    found = flags(audited)
    assert found["unreadable"] == {0, 1, 9}
    assert found["tiny"] == {2}
    assert found["near-constant"] == {3}
    assert found["inverted"] == {4}
    assert 5 in found["composite"]
    assert len(found["composite"]) == 1
    assert found["colour"] == {6}


def test_modes_and_bit_depths_are_in_the_table(audited):
    columns, _, _ = read_audit(audited / "audit.parquet")
    assert (columns["mode"][7], columns["mode"][10]) == ("RGB", "L")
    assert (columns["rows"][2], columns["columns"][2], columns["bits"][2]) == (72, 60, 8)
    assert columns["rows"][0] is None
    assert "truncated or corrupt" in columns["error"][0]


def test_sixteen_bits_in_a_narrow_range_are_no_finding(tmp_path):
    manifest = copy_of_mura(tmp_path, 2, 1, rows=240, columns=200)
    path = manifest.root / manifest["image"][0]
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 12).save(path)
    manifest, _ = index_mura(manifest.root)
    audit(manifest, tmp_path / "audit")
    columns, _, _ = read_audit(tmp_path / "audit/audit.parquet")
    assert columns["flags"] == [[], []]
    assert columns["bits"] == [16, 8]


def test_duplicates_by_content_whatever_their_file(audited):
    found = flags(audited)
    assert found["exact-duplicate"] == {7, 10}
    assert found["near-duplicate"] == {8, 11, 12, 36}
    assert found["duplicate-across-patients"] == {7, 10, 8, 11, 12, 36}
    assert found["duplicate-across-splits"] == {12, 36}
    assert found["duplicate-labels-differ"] == {7, 10, 8, 11}


def test_the_same_audit_again_does_nothing(spoilt, audited):
    before = (audited / "audit.html").stat().st_mtime_ns
    summary, done = audit(spoilt, audited)
    assert not done
    assert summary == read_audit(audited / "audit.parquet")[2]
    assert (audited / "audit.html").stat().st_mtime_ns == before


def test_workers_do_not_change_the_audit(spoilt, audited, tmp_path):
    audit(spoilt, tmp_path, workers=2)
    assert read_audit(tmp_path / "audit.parquet") == read_audit(audited / "audit.parquet")


KILLED = """
import os, signal, sys
from pathlib import Path
from mskscreen.data.audit.run import audit
from mskscreen.data.manifest import Manifest

def advance(count):
    if count:
        os.kill(os.getpid(), signal.SIGKILL)

audit(Manifest.read(Path(sys.argv[1])), Path(sys.argv[2]), advance=advance)
"""


def test_a_killed_audit_goes_on_and_ends_the_same(tmp_path):
    manifest = copy_of_mura(tmp_path, 60, 2)
    manifest.write(tmp_path / "index.parquet")
    arguments = [str(tmp_path / "index.parquet"), str(tmp_path / "killed")]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments]).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/audit.parquet").exists()
    steps: list[int] = []
    audit(manifest, tmp_path / "killed", advance=steps.append)
    assert steps == [64, 56]
    audit(manifest, tmp_path / "whole")
    assert read_audit(tmp_path / "killed/audit.parquet") == read_audit(tmp_path / "whole/audit.parquet")


class Page(HTMLParser):
    """Elements and attributes of a page as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        self.attributes |= {(name, value or "") for name, value in attributes}


def test_hostile_names_cannot_break_the_page(tmp_path):
    names = ["<script>alert(1)</script>.png", '"><img src=x onerror=alert(1)>.png', "&lt;b&gt;'.png"]
    (tmp_path / "list.csv").write_text(
        "path,joint\n" + "".join(f'"{n.replace(chr(34), chr(34) * 2)}",<i>\n' for n in names)
    )
    safe = [name.replace("/", "\u2044") for name in names]
    (tmp_path / "list.csv").write_text((tmp_path / "list.csv").read_text().replace("</script>", "<\u2044script>"))
    for name in safe:
        Image.new("L", (200, 200), 7).save(tmp_path / name)
    manifest, _ = read_source(tmp_path / "list.csv")
    assert len(manifest) == 3
    audit(manifest, tmp_path / "audit")
    text = (tmp_path / "audit/audit.html").read_text()
    page = Page(text)
    assert page.elements <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "strong", "table", "tr", "th", "td"),
        *("div", "figure", "figcaption", "img", "br", "span"),
    }
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert all(value.startswith("data:image/jpeg;base64,") for name, value in page.attributes if name == "src")
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text


def test_the_page_is_self_contained_and_says_whom_it_is_for(audited):
    text = (audited / "audit.html").read_text()
    assert "For the local user only" in text
    assert NOT_FOR_DIAGNOSIS in text
    assert text.count("data:image/jpeg;base64,") >= 15
    assert not re.search(r"https?://|<script|<link", text)
    # Several flags of one image share its thumbnail, so a page stays small.
    assert len(text) < 2_000_000


def test_studies_and_patients_that_contradict_themselves(tmp_path):
    listed = [
        *(Study("XR_HAND", "patient00001", 1, label, 1) for label in (0, 1)),
        Study("XR_HAND", "patient00002", 1, 0, 1),
        Study("XR_ELBOW", "patient00002", 1, 0, 1, "valid"),
        Study("XR_ELBOW", "patient00003", 1, 1, 1),
    ]
    manifest, _ = index_mura(write_lists(tmp_path, listed))
    audit(manifest, tmp_path / "audit")
    found = flags(tmp_path / "audit")
    assert found["both-labels"] == {0, 1}
    assert found["patient-across-splits"] == {2, 4}


def test_images_on_their_side_are_found_by_the_joint_head(tmp_path):
    manifest = copy_of_mura(tmp_path, 10, 2, rows=120, columns=100)
    turned = {3: 1, 8: 2, 12: 3}
    for row, turn in turned.items():
        path = manifest.root / manifest["image"][row]
        Image.fromarray(np.rot90(np.asarray(Image.open(path)), -turn)).save(path)
    upright = {limb(seed, 120, 100).tobytes() for seed in range(20)}

    def joint_head(images):
        rows = np.full((len(images), len(JOINT_LABELS)), 0.1)
        for row, image in zip(rows, images, strict=True):
            seen = image.tobytes() in upright
            row[JointType.HAND] = 0.9 if seen else 0.1
        return rows

    manifest, _ = index_mura(manifest.root)
    audit(manifest, tmp_path / "audit", Options(joint_head=joint_head, joint_head_name="exact"))
    columns, _, _ = read_audit(tmp_path / "audit/audit.parquet")
    assert {row: turn for row, turn in enumerate(columns["turn"]) if turn} == turned
    assert flags(tmp_path / "audit")["rotated"] == set(turned)


def test_an_audit_stopped_while_the_joint_head_looks_goes_on_there(tmp_path):
    manifest = copy_of_mura(tmp_path, 15, 2)

    def joint_head(images):
        nonlocal left
        left -= len(images) // 4
        if left < 0:
            raise InterruptedError
        rows = np.full((len(images), len(JOINT_LABELS)), 0.1)
        # Recognised after one turn to the left, whatever is seen.
        rows[1::4, JointType.HAND] = 0.9
        return rows

    options = Options(joint_head=joint_head, joint_head_name="a")
    left, steps = 20, []
    with pytest.raises(InterruptedError):
        audit(manifest, tmp_path / "audit", options)
    assert not (tmp_path / "audit/audit.parquet").exists()
    left = 30 - 16
    audit(manifest, tmp_path / "audit", options, advance=steps.append)
    assert sum(steps) == 60
    assert left == 0
    assert read_audit(tmp_path / "audit/audit.parquet")[0]["turn"] == [1] * 30
    left = 30
    audit(manifest, tmp_path / "audit", Options(joint_head=joint_head, joint_head_name="b"))
    assert left == 0


def test_an_image_that_vanishes_before_the_joint_head_looks_has_no_turn(tmp_path):
    manifest = copy_of_mura(tmp_path, 2, 1)
    measured = [{"error": None}] * 2
    (manifest.root / manifest["image"][0]).unlink()
    turns = find_turns(
        manifest, measured, lambda images: np.zeros((len(images), 7)), Journal(tmp_path / "j", "key")
    )
    assert turns == [None, 0]


def test_what_does_not_fit_is_said_before_any_image_is_read(tmp_path):
    manifest = copy_of_mura(tmp_path, 2, 1)
    steps: list[int] = []
    stranger = Predictions((Prediction("/else/1.png", "1", p_abnormal=0.5),))
    for options in (Options(labels="label_second"), Options(labels="joint"), Options(predictions=(stranger,))):
        with pytest.raises(DataError):
            audit(manifest, tmp_path / "audit", options, advance=steps.append)
    assert steps == []


@pytest.fixture(scope="module")
def predicted():
    """200 studies of two images, a model that is right in 95 %, and five labels turned against it."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2
    wrong = {10, 51, 90, 133, 170}
    rows = []
    for study, label in enumerate(truth):
        given = 1 - label if study in wrong else label
        rows += [{"image": f"{study}/{i}.png", "study": str(study), "label": int(given)} for i in (1, 2)]
    manifest = Manifest.from_rows("/data", rows, "test")
    sure = np.clip(rng.normal(0.93, 0.04, 200), 0.6, 0.99)
    p = np.where(truth == 1, sure, 1 - sure)
    images = [Prediction(f"/data/{row['image']}", row["study"], p_abnormal=p[int(row["study"])]) for row in rows]
    return manifest, images, {str(study) for study in wrong}


def test_turned_labels_are_found_by_out_of_fold_predictions(predicted):
    manifest, images, wrong = predicted
    folds = [Predictions(tuple(images[:150])), Predictions(tuple(images[150:]))]
    quality, found = label_noise(manifest, folds)
    assert wrong <= found
    assert len(found) <= 10
    assert max(quality[study] for study in wrong) < 0.4
    assert len(quality) == 200


def test_predictions_that_saw_an_image_twice_or_are_of_other_files_are_refused(predicted):
    manifest, images, _ = predicted
    with pytest.raises(DataError, match="occurs twice"):
        label_noise(manifest, [Predictions(tuple(images)), Predictions(tuple(images[:1]))])
    with pytest.raises(DataError, match="no file is an image"):
        label_noise(manifest, [Predictions((Prediction("/else/1.png", "1", p_abnormal=0.5),))])


def test_near_pairs_across_tiles_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr("mskscreen.data.audit.duplicates._TILE", 16)
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**63, 100, np.uint64)
    thumbs = rng.random((100, 64)).astype(np.float32)
    hashes[[70, 3, 40]] = hashes[5] ^ np.uint64(0b1011)
    thumbs[[70, 3]] = thumbs[5] * 0.5 + 0.2
    assert sorted(near_pairs(hashes, thumbs)) == [(3, 5), (3, 70), (5, 70)]


def test_groups_join_what_is_connected():
    assert groups(6, [(4, 1), (1, 0), (3, 5)]) == [0, 0, None, 3, 0, 3]
    assert list(exact_pairs(["a", None, "b", "a", None, "a"])) == [(0, 3), (0, 5)]


def test_an_audit_that_was_cut_is_done_again(spoilt, audited, tmp_path):
    for name in ("audit.parquet", "audit.html", "measures.jsonl"):
        (tmp_path / name).write_bytes((audited / name).read_bytes())
    os.truncate(tmp_path / "audit.parquet", 100)
    _, done = audit(spoilt, tmp_path)
    assert done
    assert read_audit(tmp_path / "audit.parquet") == read_audit(audited / "audit.parquet")


def test_a_file_that_changed_is_measured_again(tmp_path):
    manifest = copy_of_mura(tmp_path, 3, 1, rows=240, columns=200)
    path = manifest.root / manifest["image"][1]
    good = path.read_bytes()
    path.write_bytes(b"?" * len(good))
    audit(manifest, tmp_path / "audit")
    assert flags(tmp_path / "audit")["unreadable"] == {1}
    path.write_bytes(good)
    _, done = audit(manifest, tmp_path / "audit")
    assert done
    assert flags(tmp_path / "audit") == {}
