"""A pack gives nothing away: not in names, bytes, pixels or metadata, and not by its order."""

import csv
import hashlib
import json
import shutil
import struct
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from mskscreen.errors import DataError
from mskscreen.pixels import displayed, read_radiograph
from mskscreen.pixels.geometry import Geometry
from mskscreen.review.pack import Design, _peak, finished, make_pack
from mskscreen.review.picture import write_png
from mskscreen.review.protocol import AIDED, UNAIDED, Key, images_digest, open_pack
from mskscreen.review.selection import reading_order, showings


def key_of(pack):
    return Key.read(pack.with_name(f"{pack.name}.key.json"))


def orders(pack):
    for form in sorted(pack.glob("*/forms/*.csv")):
        with form.open(newline="") as stream:
            yield form.stem, list(csv.DictReader(stream))


def test_no_patient_label_or_path_is_in_names_bytes_or_pixels(pack, study):
    assert len(study.secrets) > 40
    for path in pack.rglob("*"):
        held = path.relative_to(pack).as_posix().encode() + (path.read_bytes() if path.is_file() else b"")
        if path.suffix == ".png":
            held += np.asarray(Image.open(path)).tobytes()
        held = held.lower()
        for secret in study.secrets:
            assert secret.lower().encode() not in held, (path.name, secret)


def test_pictures_hold_nothing_but_pixels(pack):
    for path in pack.rglob("*.png"):
        data, at, chunks = path.read_bytes(), 8, set()
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            chunks.add(kind)
            at += 12 + length
        assert chunks == {b"IHDR", b"IDAT", b"IEND"}
    assert len({path.stat().st_mtime for path in pack.rglob("*.*")}) == 1


def test_a_picture_is_its_radiograph(pack, study):
    key = key_of(pack)
    for code, showing in key.showings.items():
        for number, view in enumerate(key.cases[showing.case].views):
            shown = np.asarray(Image.open(pack / showing.phase / "images" / f"{code}-{number + 1}.png")) / 255
            np.testing.assert_allclose(shown, displayed(read_radiograph(view.file)), atol=0.51 / 255)


def test_an_image_called_normal_has_no_map_and_says_so(pack):
    key, widths = key_of(pack), {True: [], False: []}
    for code, showing in key.showings.items():
        for number, view in enumerate(key.cases[showing.case].views):
            if not view.mapped:
                assert view.peak is None
            if showing.phase == AIDED:
                page = Image.open(pack / AIDED / "images" / f"{code}-{number + 1}-map.png")
                widths[view.mapped].append(page.width)
    # One radiograph, not two side by side.
    assert min(widths[True]) > 1.5 * max(widths[False]) > 0


@pytest.mark.parametrize("cell", [(0, 0), (0, 6), (3, 2), (6, 6)])
def test_the_peak_of_a_map_is_the_centre_of_its_highest_cell(cell):
    cells = np.zeros((7, 7), np.float32)
    cells[cell] = 1
    found = _peak(Geometry.squash(700, 1400, 224, 224).map_to_source(cells))
    assert found == pytest.approx((200 * cell[1] + 99.5, 100 * cell[0] + 49.5), abs=1)
    assert _peak(0 * cells) is None


def test_other_labels_and_other_patients_make_the_same_pack(study, make_study, screener, tmp_path):
    other = make_study(swap=True, first=57000)
    for name, cases in (("one", study.cases), ("other", other.cases)):
        make_pack(tmp_path / name, tmp_path / f"{name}.key.json", cases, screener, Design(12, 2, 0.25, 9))
    names = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert names == sorted(path.relative_to(tmp_path / "other") for path in (tmp_path / "other").rglob("*.*"))
    differing = [
        n.name for n in names if (tmp_path / "one" / n).read_bytes() != (tmp_path / "other" / n).read_bytes()
    ]
    # The protocol commits to the key, which holds the truth.
    assert differing == ["protocol.json"] * 2


def test_the_folder_of_a_phase_is_whole_and_knows_nothing_of_the_other(pack):
    key = key_of(pack)
    assert sorted(path.name for path in pack.iterdir()) == ["README.txt", AIDED, UNAIDED]
    for phase in (UNAIDED, AIDED):
        held = [path for path in (pack / phase).rglob("*") if path.is_file()]
        assert {path.parent.name for path in held} == {phase, "images", "forms"}
        assert {path.name for path in held} >= {"README.txt", "protocol.json", f"reader-1-{phase}.csv"}
        everything = b"".join(path.name.encode() + path.read_bytes() for path in held)
        for code, showing in key.showings.items():
            assert (code.encode() in everything) == (showing.phase == phase)
    assert not list((pack / UNAIDED).rglob("*map*"))
    assert "map" not in (pack / UNAIDED / "README.txt").read_text()


def test_neither_digest_nor_size_of_a_file_links_codes_of_one_picture(pack):
    key, showings_of = key_of(pack), {}
    for code, showing in key.showings.items():
        for number in range(len(key.cases[showing.case].views)):
            path = pack / showing.phase / "images" / f"{code}-{number + 1}.png"
            showings_of.setdefault((showing.case, number), []).append(path)
    assert Counter(map(len, showings_of.values())).keys() == {2, 4}
    sizes = []
    for paths in showings_of.values():
        first, *others = (np.asarray(Image.open(path)) for path in paths)
        assert all(np.array_equal(first, other) for other in others)
        assert len({path.read_bytes() for path in paths}) == len(paths)
        sizes += [(one.stat().st_size, other.stat().st_size) for one, other in combinations(paths, 2)]
    # By chance some are equal: these pictures are of two thousand bytes.
    assert sum(one == other for one, other in sizes) < 0.1 * len(sizes)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (40, 50, 3)])
def test_a_picture_encoded_by_chance_is_the_same_picture(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for seed in range(20):
        write_png(tmp_path / "a.png", pixels, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_files_are_made_in_the_order_of_the_codes(study, screener, tmp_path, monkeypatch):
    monkeypatch.setattr("mskscreen.review.pack.os.utime", lambda *_: None)
    make_pack(tmp_path / "p", tmp_path / "key.json", study.cases, screener, Design(12, 1, 0.25, 2))
    for phase in (UNAIDED, AIDED):
        made = [path.stat().st_mtime_ns for path in sorted((tmp_path / "p" / phase / "images").iterdir())]
        assert made == sorted(made)


def test_an_image_with_another_score_than_in_the_table_is_refused(study, screener, tmp_path):
    root = shutil.copytree(study.root, tmp_path / "copy")
    one, other = sorted(root.rglob("*.png"))[0], sorted(root.rglob("*.png"))[-1]
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match=r"row \d+ says abnormal 0\.\d+, and its image now has"):
        make_pack(tmp_path / "p", tmp_path / "k.json", study.cases, screener, Design(12, 1, 0, 0), root=root)
    one.write_bytes(kept)
    make_pack(tmp_path / "p", tmp_path / "k.json", study.cases, screener, Design(12, 1, 0, 0), root=root)


def test_a_key_that_cannot_be_written_is_known_before_pictures_are_drawn(study, screener, tmp_path):
    def drawn(_):
        raise AssertionError("a picture was drawn")

    for key, why in ((tmp_path / "no" / "k.json", "its folder is not there"), (study.root, "is a folder")):
        with pytest.raises(DataError, match=why):
            make_pack(tmp_path / "p", key, study.cases, screener, Design(4, 1, 0, 0), advance=drawn)
    assert not list(tmp_path.iterdir())


def test_a_study_whose_file_fails_when_it_is_read_is_not_shown(make_study, screener, tmp_path):
    made = make_study(first=91000)
    broken = next(made.root.rglob("*.png"))
    broken.unlink()
    # A regular file by its status, which nobody can read from its beginning.
    broken.symlink_to("/proc/self/mem")
    make_pack(tmp_path / "p", tmp_path / "key.json", made.cases, screener, Design(10, 1, 0, 0))
    shown = [view.file for case in Key.read(tmp_path / "key.json").cases for view in case.views]
    assert str(broken) not in shown


def test_images_that_are_nowhere_are_said_with_the_option_that_names_their_folder(study, screener, tmp_path):
    with pytest.raises(DataError, match=r"no abnormal study can be shown.*folder of their images with --images"):
        make_pack(tmp_path / "p", tmp_path / "k.json", study.cases, screener, Design(4, 1, 0, 0), root=tmp_path)


def test_half_of_the_cases_are_abnormal_and_joints_are_spread(pack):
    key = key_of(pack)
    assert Counter(case.label for case in key.cases) == {0: 4, 1: 4}
    for label in (0, 1):
        joints = Counter(case.joint for case in key.cases if case.label == label)
        assert sorted(joints.values()) == [1, 1, 2]
    assert len({case.patient for case in key.cases}) == 8


def test_each_reader_has_an_order_of_his_own_that_says_nothing(pack):
    key, seen = key_of(pack), set()
    for name, rows in orders(pack):
        codes = [row["case"] for row in rows]
        assert len(codes) == len(set(codes)) == 10
        assert {key.showings[code].phase for code in codes} == {name.split("-")[2]}
        assert all(row["call"] == "" for row in rows)
        seen.add(tuple(codes))
    assert len(seen) == 6


def test_a_case_that_comes_twice_comes_once_in_each_half():
    shown = showings(30, ("unaided",), 6, seed=1)
    for reader in range(5):
        order = reading_order(shown, "unaided", reader, 1)
        assert len(order) == 36
        places = {}
        for place, code in enumerate(order):
            places.setdefault(shown[code].case, []).append(place)
        twice = [p for p in places.values() if len(p) == 2]
        assert len(twice) == 6
        assert all(first < 18 <= second for first, second in twice)


def test_burned_in_text_is_not_shown(make_study, screener, tmp_path):
    cases = make_study(first=81000, BurnedInAnnotation="YES").cases
    make_pack(tmp_path / "p", tmp_path / "key.json", cases, screener, Design(8, 1, 0, 0))
    assert all(v.file.endswith(".png") for case in Key.read(tmp_path / "key.json").cases for v in case.views)
    with pytest.raises(DataError, match=r"only 4 abnormal studies.*at most 8 cases"):
        make_pack(tmp_path / "q", tmp_path / "key2.json", cases, screener, Design(10, 1, 0, 0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.json", "p"]


def test_the_key_may_not_lie_in_the_pack_and_is_for_its_owner_only(pack, study, screener, tmp_path):
    with pytest.raises(DataError, match="may not lie in the pack"):
        make_pack(tmp_path / "p", tmp_path / "p" / "key.json", study.cases, screener, Design(4, 1, 0, 0))
    assert not (tmp_path / "p").exists()
    assert pack.with_name("pack.key.json").stat().st_mode & 0o077 == 0
    assert not list(pack.rglob("*key*"))


def test_a_pack_without_a_folder_for_each_phase_is_neither_finished_nor_scored(study, screener, tmp_path):
    out, key = tmp_path / "p", tmp_path / "key.json"
    make_pack(out, key, study.cases, screener, Design(4, 1, 0, 3), request={"cases": 4})
    assert finished(out, key, {"cases": 4})
    old = json.loads(key.read_text())
    old["protocol"] |= {"schema": 1, "images_sha256": "00"}
    key.write_text(json.dumps(old))
    for read in (lambda: finished(out, key, {"cases": 4}), lambda: open_pack(out, key)):
        with pytest.raises(DataError, match=r"key\.json: is the key of a pack in layout 1, not 2.*make a new"):
            read()


def test_protocol_key_and_pictures_are_frozen_together(study, screener, tmp_path):
    out, key = tmp_path / "p", tmp_path / "key.json"
    digest = make_pack(out, key, study.cases, screener, Design(4, 1, 0, 3))
    make_pack(tmp_path / "q", tmp_path / "other.json", study.cases, screener, Design(4, 1, 0, 4))
    assert open_pack(out, key)[1] == digest
    with pytest.raises(DataError, match="not the key that"):
        open_pack(out, tmp_path / "other.json")
    for phase in (UNAIDED, AIDED):
        protocol = out / phase / "protocol.json"
        frozen = protocol.read_text()
        assert hashlib.sha256(frozen.encode()).hexdigest() == digest
        protocol.write_text(frozen.replace('"resamples": 2000', '"resamples": 20'))
        with pytest.raises(DataError, match=f"{phase}/protocol.json: changed since"):
            open_pack(out, key)
        protocol.write_text(frozen)
        picture = next((out / phase).rglob("*.png"))
        pixels = picture.read_bytes()
        before = images_digest(out)
        picture.unlink()
        assert images_digest(out) != before
        with pytest.raises(DataError, match=f"{phase}: its pictures are not"):
            open_pack(out, key)
        picture.write_bytes(pixels)
    assert open_pack(out, key)[1] == digest
