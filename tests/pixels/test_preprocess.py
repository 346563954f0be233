"""Preprocessing strings, the resize, and the way back to the source."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mskscreen.errors import PreprocessingError
from mskscreen.pixels import Preprocessing, displayed, read_radiograph

RELEASE = "decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit"
_sides = st.integers(1, 4096)
_pipelines = st.builds(
    Preprocessing, _sides, _sides, fit=st.sampled_from(["resize", "letterbox"]), window=st.booleans()
)
_small = st.integers(1, 90)


@given(_pipelines)
def test_printing_is_the_inverse_of_parsing(pipeline):
    assert Preprocessing.parse(str(pipeline)) == pipeline


@given(_pipelines, st.randoms())
def test_parsing_is_the_inverse_of_printing_up_to_blanks(pipeline, random):
    text = str(pipeline)
    spaced = "".join(c + " " * random.randint(0, 2) if c in "|,()" else c for c in text)
    assert str(Preprocessing.parse(spaced)) == text


def test_the_release_preprocessing_is_read():
    assert Preprocessing.parse(RELEASE) == Preprocessing(224, 224, fit="resize", window=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RELEASE.replace("resize", "resise"), "nearest known one is 'resize'"),
        (RELEASE.replace("grayscale", "greyscale"), "nearest known one is 'grayscale'"),
        (RELEASE.replace("|unit", ""), "missing or out of order"),
        (RELEASE.replace("decode|grayscale", "grayscale|decode"), "missing or out of order"),
        (RELEASE + "|unit", "missing or out of order"),
        (RELEASE.replace("window(auto)", "window(wide)"), "write 'window"),
        (RELEASE.replace("bilinear", "cubic"), "H,W,bilinear,antialias"),
        (RELEASE.replace("224,224", "0,224"), "between 1 and"),
        (RELEASE.replace("unit", "unit()"), "write 'unit'"),
        ("", "unknown"),
    ],
)
def test_errors_name_what_is_wrong(text, reason):
    with pytest.raises(PreprocessingError, match=reason):
        Preprocessing.parse(text)


@given(st.text(alphabet="decogrywinu|(),au12bl ", max_size=60))
def test_any_text_parses_or_is_a_preprocessing_error(text):
    try:
        parsed = Preprocessing.parse(text)
    except PreprocessingError:
        return
    assert Preprocessing.parse(str(parsed)) == parsed


def test_squash_equals_pillow_on_bytes_within_a_level():
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (130, 90), dtype=np.uint8)).resize((400, 512))
    ours = Preprocessing.parse(RELEASE)(read_radiograph(np.asarray(image)))
    theirs = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)) / 255
    assert ours.shape == (1, 224, 224)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[0], theirs, atol=1 / 255)


def test_reduction_is_antialiased():
    checker = np.indices((512, 512)).sum(0) % 2
    reduced = Preprocessing(64, 64)(read_radiograph(checker.astype(np.uint8) * 255))
    np.testing.assert_allclose(reduced[:, 2:-2, 2:-2], 0.5, atol=0.02)


@given(rows=_small, columns=_small, height=_small, width=_small)
@settings(deadline=None)
def test_letterbox_keeps_the_image_inside_black_margins(rows, columns, height, width):
    pipeline = Preprocessing(height, width, fit="letterbox", window=False)
    result = pipeline(read_radiograph(np.full((rows, columns), 255, np.uint8)))[0]
    box = pipeline.geometry(rows, columns)
    assert result.shape == (height, width)
    inside = np.zeros((height, width), bool)
    inside[box.top : box.top + box.box_height, box.left : box.left + box.box_width] = True
    np.testing.assert_array_equal(result, inside)
    assert box.box_height == height or box.box_width == width
    assert abs(box.box_height - rows * min(height / rows, width / columns)) <= 1
    margins = (height - box.box_height - 2 * box.top, width - box.box_width - 2 * box.left)
    assert set(margins) <= {0, 1}


def test_window_auto_touches_only_what_nobody_made_for_display(make_dicom):
    y, x = np.mgrid[:200, :150]
    dull = 20000 + 40 * x + 30 * y
    windowed, plain = Preprocessing(100, 75), Preprocessing(100, 75, window=False)
    deep = read_radiograph(dull.astype(np.uint16))
    assert np.ptp(plain(deep)) < 0.2
    assert np.ptp(windowed(deep)) > 0.98
    for radiograph in (
        read_radiograph((dull // 256).astype(np.uint8)),
        read_radiograph((dull / 65535).astype(np.float32)),
        read_radiograph(make_dicom(dull.astype(np.uint16), WindowCenter=30000, WindowWidth=60000)),
        read_radiograph(make_dicom(dull.astype(np.uint16))),
    ):
        np.testing.assert_array_equal(windowed(radiograph), plain(radiograph))


def test_a_person_sees_sixteen_bits_at_full_contrast_and_eight_as_they_are():
    eight = np.random.default_rng(3).integers(60, 90, (40, 50)).astype(np.uint8)
    dim = read_radiograph(eight.astype(np.uint16) * 256)
    assert dim.pixels.max() < 0.4
    assert displayed(dim).min() == 0
    assert displayed(dim).max() == 1
    np.testing.assert_array_equal(displayed(read_radiograph(eight)), read_radiograph(eight).pixels)


def test_sixteen_bit_raster_and_dicom_of_the_same_values_look_the_same(make_dicom):
    """Both are stretched by the same percentiles, the one by preprocessing and the other by the decoder."""
    values = np.random.default_rng(4).normal(30000, 4000, (300, 200)).clip(0, 65535).astype(np.uint16)
    pipeline = Preprocessing(64, 64)
    raster, dicom = pipeline(read_radiograph(values)), pipeline(read_radiograph(make_dicom(values)))
    np.testing.assert_allclose(raster, dicom, atol=1e-4)


@given(
    rows=_small, columns=_small, height=_small, width=_small, fit=st.sampled_from(["resize", "letterbox"]),
    points=st.lists(st.tuples(st.floats(-5, 100), st.floats(-5, 100)), min_size=1, max_size=5),
)  # fmt: skip
def test_points_come_back(rows, columns, height, width, fit, points):
    geometry = Preprocessing(height, width, fit=fit).geometry(rows, columns)
    np.testing.assert_allclose(geometry.to_source(geometry.to_input(points)), points, atol=1e-9)
    corners = geometry.to_input([(-0.5, -0.5), (columns - 0.5, rows - 0.5)])
    box = [(geometry.left, geometry.top), (geometry.left + geometry.box_width, geometry.top + geometry.box_height)]
    np.testing.assert_allclose(corners, np.array(box) - 0.5, atol=1e-9)


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_a_bright_spot_lands_where_geometry_says(fit):
    source = np.zeros((331, 207), np.float32)
    source[200:206, 50:56] = 1
    pipeline = Preprocessing(224, 199, fit=fit)
    result = pipeline(read_radiograph(source))[0]
    y, x = np.indices(result.shape)
    centroid = np.array([(x * result).sum(), (y * result).sum()]) / result.sum()
    np.testing.assert_allclose(centroid, pipeline.geometry(331, 207).to_input((52.5, 202.5)), atol=0.05)


@given(
    rows=st.integers(1, 70), columns=st.integers(1, 70), h=st.integers(1, 12), w=st.integers(1, 12),
    fit=st.sampled_from(["resize", "letterbox"]), slope=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)  # fmt: skip
def test_a_linear_map_stays_linear_on_the_source(rows, columns, h, w, fit, slope):
    """What is linear in the coordinates of the input must be so at every source pixel between cell centres."""
    geometry = Preprocessing(64, 48, fit=fit).geometry(rows, columns)
    centres = np.stack(np.meshgrid((np.arange(w) + 0.5) * 48 / w - 0.5, (np.arange(h) + 0.5) * 64 / h - 0.5), -1)
    mapped = geometry.map_to_source(centres @ np.array(slope))
    assert mapped.shape == (rows, columns)
    points = geometry.to_input(np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1))
    low, high = centres[0, 0], centres[-1, -1]
    np.testing.assert_allclose(mapped, np.clip(points, low, high) @ np.array(slope), atol=1e-3)


def test_a_map_is_read_at_any_sampling_of_the_source():
    geometry = Preprocessing(224, 224, fit="letterbox").geometry(501, 333)
    evidence = np.random.default_rng(5).random((7, 7), np.float32)
    full, half = geometry.map_to_source(evidence), geometry.map_to_source(evidence, 167, 111)
    np.testing.assert_allclose(full[1::3, 1::3], half, atol=1e-5)


def test_pixels_put_in_place_of_others_are_fitted_by_their_own_shape(ramp):
    fit = Preprocessing(32, 32, fit="letterbox")
    original = read_radiograph(ramp)
    turned = original.with_pixels(np.rot90(displayed(original)))
    np.testing.assert_allclose(fit(turned)[0], np.rot90(fit(original)[0]), atol=1e-6)
