"""A pack gives nothing away: not in names, bytes, pixels or metadata, and not by its order."""

import csv
import struct
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mskscreen.errors import DataError
from mskscreen.pixels import displayed, read_radiograph
from mskscreen.review.pack import Design, make_pack
from mskscreen.review.protocol import AIDED, Key, images_digest, open_pack
from mskscreen.review.selection import reading_order, showings


def key_of(pack):
    return Key.read(pack.with_name(f"{pack.name}.key.json"))


def orders(pack):
    for form in sorted((pack / "forms").glob("*.csv")):
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
            shown = np.asarray(Image.open(pack / showing.phase / f"{code}-{number + 1}.png")) / 255
            np.testing.assert_allclose(shown, displayed(read_radiograph(view.file)), atol=0.51 / 255)


def test_an_image_called_normal_has_no_map_and_says_so(pack):
    key, widths = key_of(pack), {True: [], False: []}
    for code, showing in key.showings.items():
        for number, view in enumerate(key.cases[showing.case].views):
            if not view.mapped:
                assert view.peak is None
            if showing.phase == AIDED:
                page = Image.open(pack / AIDED / f"{code}-{number + 1}-map.png")
                widths[view.mapped].append(page.width)
    # One radiograph, not two side by side.
    assert min(widths[True]) > 1.5 * max(widths[False]) > 0


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
    assert differing == ["protocol.json"]


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


def test_protocol_key_and_pictures_are_frozen_together(study, screener, tmp_path):
    out, key = tmp_path / "p", tmp_path / "key.json"
    digest = make_pack(out, key, study.cases, screener, Design(4, 1, 0, 3))
    make_pack(tmp_path / "q", tmp_path / "other.json", study.cases, screener, Design(4, 1, 0, 4))
    assert open_pack(out, key)[1] == digest
    with pytest.raises(DataError, match="not the key that"):
        open_pack(out, tmp_path / "other.json")
    frozen = (out / "protocol.json").read_text()
    (out / "protocol.json").write_text(frozen.replace('"resamples": 2000', '"resamples": 20'))
    with pytest.raises(DataError, match="changed since"):
        open_pack(out, key)
    (out / "protocol.json").write_text(frozen)
    before = images_digest(out)
    next(out.rglob("*.png")).unlink()
    assert images_digest(out) != before
    with pytest.raises(DataError, match="its pictures are not"):
        open_pack(out, key)
