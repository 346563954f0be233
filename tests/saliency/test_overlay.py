"""The evidence map over its radiograph."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mskscreen.pixels.radiograph import Spacing
from mskscreen.saliency.overlay import (
    CELL,
    CONTOUR,
    FLOOR,
    LONG_SIDE,
    OPACITY,
    colours,
    contact_sheets,
    draw_overlay,
    overlay_name,
    said,
)

# Where pictures begin on a page.
TOP = 86
HALF = np.full((200, 100), 0.5, np.float32)


def pictures(page: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The plain and the coloured radiograph on the page of a 2:1 image of even grey."""
    values = np.asarray(page).astype(int)
    grey = (values == 128).all(-1)
    rows = np.flatnonzero(grey.sum(1) > LONG_SIDE // 4)
    left = np.flatnonzero(grey[rows[0] : rows[0] + LONG_SIDE].sum(0) == LONG_SIDE)[0]
    width = LONG_SIDE // 2
    top = rows[0]
    plain = values[top : top + LONG_SIDE, left : left + width]
    second = values[top : top + LONG_SIDE, left + width + 20 : left + 2 * width + 20]
    return plain, second


def test_colour_is_where_the_evidence_is_and_nowhere_else() -> None:
    evidence = np.zeros((20, 10), np.float32)
    evidence[15, 2] = 3.0
    evidence[2, 8] = -9.0
    plain, coloured = pictures(draw_overlay(HALF, evidence, "elbow"))
    assert (plain == 128).all()
    changed = (coloured != plain).any(-1)
    rows, columns = np.nonzero(changed)
    assert 13 < rows.mean() / LONG_SIDE * 20 - 0.5 < 17
    assert 1 < columns.mean() / LONG_SIDE * 20 - 0.5 < 3
    assert not changed[: LONG_SIDE // 2].any()


def test_the_bone_shows_through_and_weak_evidence_is_left_out() -> None:
    evidence = np.linspace(0, 2, 200, dtype=np.float32)[:, None].repeat(100, axis=1)
    pixels = np.tile(np.repeat(np.array([0.2, 0.8], np.float32), 50), (200, 1))
    coloured = np.asarray(draw_overlay(pixels, evidence, "", plain=False)).astype(int)[
        TOP : TOP + LONG_SIDE, 20:380
    ]
    share = np.arange(LONG_SIDE) / LONG_SIDE
    weak = coloured[share < FLOOR - 0.01]
    assert (np.ptp(weak, axis=-1) == 0).all()
    # What is left of the contrast between two greys is what the colour lets through.
    strong = coloured[share > CONTOUR + 0.01]
    assert (strong[:, 300] - strong[:, 100]).min() >= (1 - OPACITY) * 0.6 * 255 - 2
    line = np.flatnonzero((coloured[:, 300] == 240).all(-1))
    np.testing.assert_allclose(share[line], CONTOUR, atol=0.01)


@pytest.mark.parametrize("at_detector", [True, False])
def test_a_ruler_is_as_long_as_it_says(at_detector: bool) -> None:
    def page(mm: float | None) -> np.ndarray:
        spacing = mm and Spacing(mm, at_detector)
        return np.asarray(draw_overlay(np.zeros((200, 100), np.float32), {}, "", spacing=spacing or None)).max(-1)

    rulers = []
    for mm in (1, 2):
        row = page(mm)[TOP + LONG_SIDE + 14]
        rulers.append(int(np.flatnonzero(np.diff((row > 200).astype(int)) < 0)[0]) - 20)
    # 20 and 50 mm of 100 and 200, on a picture of 360 pixels.
    np.testing.assert_allclose(rulers, [20 * 3.6, 50 * 1.8], atol=2)
    assert page(1).shape[0] > page(None).shape[0]


def test_evidence_of_another_resolution_covers_the_same_frame() -> None:
    coarse = np.zeros((4, 2), np.float32)
    coarse[3, 0] = 1
    fine = coarse.repeat(50, 0).repeat(50, 1)
    seen = []
    for evidence in (coarse, fine):
        plain, coloured = pictures(draw_overlay(HALF, evidence, ""))
        strength = np.abs(coloured - plain).sum(-1)
        seen.append(np.array(np.nonzero(strength > strength.max() / 2)).mean(1))
    np.testing.assert_allclose(seen[0], seen[1], atol=LONG_SIDE / 20)


@pytest.mark.parametrize("evidence", [np.zeros((3, 3)), -np.ones((3, 3))])
def test_without_evidence_nothing_is_coloured(evidence: np.ndarray) -> None:
    page = np.asarray(draw_overlay(HALF, evidence, ""))
    plain, coloured = pictures(Image.fromarray(page))
    assert np.array_equal(plain, coloured)
    # Not the colour bar either, which would be a scale of nothing.
    assert (page.max(-1) == page.min(-1)).all()


def test_the_scale_does_not_change_the_picture_only_the_numbers() -> None:
    evidence = np.random.default_rng(0).random((8, 8)).astype(np.float32)
    pages = [np.asarray(draw_overlay(HALF, evidence * factor, "")).astype(int) for factor in (1, 1000)]
    (_, one), (_, other) = (pictures(Image.fromarray(page.astype(np.uint8))) for page in pages)
    assert np.abs(one - other).max() <= 1
    assert np.abs(pages[0] - pages[1]).max() > 100


def test_only_what_is_in_log_odds_is_called_so() -> None:
    pages = {
        title: np.asarray(draw_overlay(HALF, {title: HALF}, ""))[:, -8 * 20 :]
        for title in ("RISE", "XXXX", "CAM", "Grad-CAM")
    }
    assert np.array_equal(pages["RISE"], pages["XXXX"])
    assert np.array_equal(pages["CAM"], pages["Grad-CAM"])
    assert (pages["RISE"] > 0).sum() > (pages["CAM"] > 0).sum()


@pytest.mark.parametrize("shape", [(1, 1), (3000, 20), (20, 3000), (700, 500)])
def test_any_shape_gives_a_page_that_holds_all_its_words(shape: tuple[int, int]) -> None:
    page = draw_overlay(np.zeros(shape, np.float32), np.ones((2, 2), np.float32), "shoulder, abnormal: 0.50 " * 3)
    lit = np.asarray(page.convert("L")) > 60
    assert not lit[:, -4:].any()
    assert not lit[-4:].any()
    assert page.width < 3 * LONG_SIDE


@pytest.mark.parametrize("shape", [(900, 20), (20, 900)])
def test_titles_and_scales_of_slim_radiographs_do_not_lie_on_each_other(shape: tuple[int, int]) -> None:
    pixels, dark = np.full(shape, 0.5, np.float32), np.zeros(shape, np.float32)
    titles = {"HiResCAM": pixels, "integrated gradients": pixels}
    whole = np.asarray(draw_overlay(pixels, titles, ""))
    titled = np.flatnonzero((whole[48:70] > 60).any(axis=(0, 2)))
    # Wider than the space between two words.
    assert (np.diff(titled) > 14).sum() == len(titles)
    assert draw_overlay(dark, titles, "").height >= 8 * 20 + 3 * 28


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("wrist", 0.3, False), "wrist, abnormal: 0.30, called normal"),
        (("wrist", 0.3, True), "wrist, abnormal: 0.30, called abnormal"),
        (("wrist", None, None), "wrist"),
        ((None, 0.3, True), "abnormal: 0.30, called abnormal"),
    ],
)
def test_a_caption_says_the_call_and_nothing_that_was_not_learned(row: tuple, words: str) -> None:
    assert said(*row) == words


def test_the_colours_grow_lighter_evenly() -> None:
    values = colours(np.linspace(0, 1, 50)) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = 116 * np.cbrt(luminance) - 16
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.mean()


@given(st.text(max_size=60), st.text(max_size=60))
def test_names_are_safe_and_distinct(one: str, other: str) -> None:
    names = [overlay_name(text, text) for text in (one, other)]
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*-[0-9a-f]{16}\.png", name) for name in names)
    assert (names[0].lower() == names[1].lower()) == (one == other)


def test_a_name_keeps_what_a_reader_needs() -> None:
    name = overlay_name("/data/XR_HAND/patient00001/study1/image2.png", "x")
    assert name.startswith("patient00001-study1-image2-")
    assert "/" not in overlay_name("../../etc/passwd", "x")


def test_pictures_of_any_shape_fill_their_contact_sheets(tmp_path) -> None:
    """Nothing but the end of the last row is left black, and no sheet grows with the number of pictures."""
    shapes = [(900, 2600), (880, 300), (880, 1600), (400, 1100), (900, 800)] * 20
    paths = []
    for number, (height, width) in enumerate(shapes):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (width // 10, height // 10), (255, 255, 255 - number)).save(paths[-1])
    sheets = [np.asarray(sheet) for sheet in contact_sheets(paths)]
    assert len(sheets) > 1
    seen = []
    assert all((sheet[..., 0] == 255).mean() > 0.99 for sheet in sheets[:-1])
    for sheet in sheets:
        assert sheet.shape[1] == 3 * CELL
        assert len(sheet) <= 12 * CELL
        seen += [255 - blue for blue in np.unique(sheet[sheet[..., 0] == 255][:, 2])]
    assert sorted(seen) == list(range(len(paths)))
    (one,) = contact_sheets(paths[1:2])
    assert one.size == (round(CELL * 30 / 88), CELL)
    assert list(contact_sheets([])) == []


def test_a_very_wide_picture_leaves_its_neighbours_on_a_sheet_readable(tmp_path) -> None:
    shapes = [(900, 800), (90, 1500), (880, 300), (900, 800), (400, 2900), (880, 1600), (880, 1600)]
    paths = []
    for number, (height, width) in enumerate(shapes):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (width // 10, height // 10), (255, 255, 255 - number)).save(paths[-1])
    (sheet,) = map(np.asarray, contact_sheets(paths))
    for number, (height, width) in enumerate(shapes):
        rows, columns = np.nonzero((sheet[..., 0] == 255) & (sheet[..., 2] == 255 - number))
        assert np.ptp(rows) + 1 >= CELL // 2 or np.ptp(columns) > 0.99 * 3 * CELL
        assert (np.ptp(columns) + 1) / (np.ptp(rows) + 1) == pytest.approx(width / height, rel=0.02)
