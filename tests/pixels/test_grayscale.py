"""The grayscale pipeline: polarity, stored bits, LUTs, windows and padding."""

import itertools
import struct

import numpy as np
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from mskscreen.pixels import Preprocessing, displayed, read_radiograph

TOP = 4095


def lut(descriptor, data, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", vr, list(data) if vr == "US" else data)
    return Sequence([item])


def twin_window(center, width, function):
    """The window that shows `TOP - x` as the negative of `x` (PS3.3 C.11.2.1.2: LINEAR lies half a unit off)."""
    return {
        "WindowCenter": TOP - center + (function == "LINEAR"),
        "WindowWidth": width,
        "VOILUTFunction": function,
    }


CURVE = [int(65535 * (i / TOP) ** 2) for i in range(TOP + 1)]
NEGATIVE_CURVE = [65535 - value for value in reversed(CURVE)]
# Header fields of an image and of its twin, whose stored values are `TOP - x` and whose polarity is MONOCHROME1.
DISPLAYS = {
    "percentile": ({}, {}),
    **{
        f"{function} {width}": (
            {"WindowCenter": 1500, "WindowWidth": width, "VOILUTFunction": function},
            twin_window(1500, width, function),
        )
        for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID")
        for width in (1, 2, 900)
    },
    "rescale": (
        {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 2000, "WindowWidth": 5000},
        {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 2 * TOP - 3999, "WindowWidth": 5000},
    ),
    "voi lut": (
        {"VOILUTSequence": lut([TOP + 1, 0, 16], CURVE)},
        {"VOILUTSequence": lut([TOP + 1, 0, 16], NEGATIVE_CURVE)},
    ),
    "modality lut": (
        {"ModalityLUTSequence": lut([TOP + 1, 0, 16], CURVE)},
        {"ModalityLUTSequence": lut([TOP + 1, 0, 16], NEGATIVE_CURVE)},
    ),
    "modality and voi lut": (
        {
            "ModalityLUTSequence": lut([TOP + 1, 0, 16], range(100, TOP + 101)),
            "VOILUTSequence": lut([TOP + 1, 100, 16], CURVE),
        },
        {
            "ModalityLUTSequence": lut([TOP + 1, 0, 16], range(100, TOP + 101)),
            "VOILUTSequence": lut([TOP + 1, 100, 16], NEGATIVE_CURVE),
        },
    ),
}


@pytest.mark.parametrize("padding", [(), (0,), (17, 60)], ids=["no padding", "value", "range"])
@pytest.mark.parametrize("display", DISPLAYS)
def test_monochrome1_twin_equals_monochrome2_twin(make_dicom, ramp, display, padding):
    fields, twin_fields = (dict(given) for given in DISPLAYS[display])
    for target, mirror in ((fields, False), (twin_fields, True)):
        for keyword, value in zip(("PixelPaddingValue", "PixelPaddingRangeLimit"), padding, strict=False):
            target[keyword] = TOP - value if mirror else value
    one = read_radiograph(make_dicom(ramp, BitsStored=12, **fields))
    twin = make_dicom(TOP - ramp, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **twin_fields)
    two = read_radiograph(twin)
    np.testing.assert_allclose(one.pixels, two.pixels, rtol=0, atol=1e-6)
    assert np.ptp(one.pixels) > 0.5
    assert one.record.padded == two.record.padded
    if padding:
        masked = (ramp >= min(padding)) & (ramp <= max(padding))
        assert one.record.padded == masked.sum() > 0
        assert not one.pixels[masked].any()


def test_inversion_happens_once_however_it_is_said(make_dicom, ramp):
    window = {"BitsStored": 12, "WindowCenter": 2048, "WindowWidth": 4096}
    upright = read_radiograph(make_dicom(ramp, PresentationLUTShape="IDENTITY", **window)).pixels
    says = [("MONOCHROME1", "INVERSE"), ("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")]
    for photometric, shape in says:
        other = make_dicom(ramp, PhotometricInterpretation=photometric, PresentationLUTShape=shape, **window)
        radiograph = read_radiograph(other)
        np.testing.assert_allclose(radiograph.pixels, 1 - upright, atol=1e-6)
        assert radiograph.record.inverted


def test_linear_window_follows_the_standard(make_dicom):
    """PS3.3 C.11.2.1.2.1: below c - 0.5 - (w-1)/2 black, above c - 0.5 + (w-1)/2 white, linear between."""
    values = np.arange(256, dtype=np.uint16)[None]
    shown = read_radiograph(make_dicom(values, WindowCenter=100, WindowWidth=51)).pixels[0]
    expected = np.clip((np.arange(256) - 99.5) / 50 + 0.5, 0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_signed_and_unsigned_storage_agree(make_dicom, ramp):
    window = {"BitsStored": 12, "WindowWidth": 3000}
    unsigned = read_radiograph(make_dicom(ramp, WindowCenter=2048, **window)).pixels
    signed = (ramp.astype(np.int16) - 2048).astype(np.int16)
    np.testing.assert_array_equal(read_radiograph(make_dicom(signed, WindowCenter=0, **window)).pixels, unsigned)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_outside_the_stored_ones_do_not_matter(make_dicom, ramp, signed):
    fields = {"BitsStored": 12, "WindowCenter": 0 if signed else 2048, "WindowWidth": 3000}
    values = (ramp.astype(np.int32) - 2048 * signed).astype(np.int16 if signed else np.uint16)
    clean = read_radiograph(make_dicom(values, **fields)).pixels
    garbage = np.random.default_rng(0).integers(0, 16, ramp.shape).astype(np.uint16) << 12
    dirty = (values.view(np.uint16) & 0x0FFF | garbage).view(values.dtype)
    np.testing.assert_array_equal(read_radiograph(make_dicom(dirty, **fields)).pixels, clean)
    left_aligned = (ramp << 4 | 5).astype(np.uint16)
    if not signed:
        shifted = make_dicom(left_aligned, **fields)
        shifted.HighBit = 15
        np.testing.assert_array_equal(read_radiograph(shifted).pixels, clean)


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big endian"])
def test_voi_lut_reads_the_same_in_every_encoding(make_dicom, file_bytes, ramp, vr, syntax):
    big = syntax == "big endian"
    array = ramp.astype(">u2") if big else ramp
    data = struct.pack((">" if big else "<") + f"{len(CURVE)}H", *CURVE) if vr == "OW" else CURVE
    dataset = make_dicom(array, BitsStored=12, VOILUTSequence=lut([TOP + 1, 0, 16], data, vr))
    if syntax != "explicit":
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian if big else ImplicitVRLittleEndian
    shown = read_radiograph(file_bytes(dataset))
    np.testing.assert_allclose(shown.pixels, np.array(CURVE)[ramp] / 65535, atol=1e-6)
    assert "VOI LUT of 4096 entries" in shown.record.window


@pytest.mark.parametrize(
    ("value", "signed", "stored"),
    [
        (4095, False, 4095),
        (0xFFFF, False, None),
        (0xF830, False, None),
        (0xF830, True, -2000),
        (0x0830, True, -2000),
        (0x1830, True, None),
    ],
)
def test_padding_is_a_value_that_pixels_can_have(make_dicom, ramp, value, signed, stored):
    array = ramp.astype(np.int16) - 2048 if signed else ramp
    record = read_radiograph(make_dicom(array, BitsStored=12, PixelPaddingValue=value)).record
    assert record.padding == (None if stored is None else (stored, stored))
    assert ("PixelPaddingValue" in " ".join(record.warnings)) is (stored is None)


@pytest.mark.parametrize("bits", range(1, 8))
def test_fewer_than_eight_bits_of_a_byte_reach_the_model(make_dicom, bits):
    codes = (np.arange(30 * 20).reshape(30, 20) % 2**bits).astype(np.uint8)
    given = Preprocessing(30, 20)(read_radiograph(make_dicom(codes, BitsStored=bits)))
    np.testing.assert_allclose(given[0], codes / (2**bits - 1), atol=1e-6)
    colour = read_radiograph(make_dicom(np.stack([codes] * 3, -1), BitsStored=bits))
    np.testing.assert_allclose(colour.pixels, codes / (2**bits - 1), atol=0.5 / 255 + 1e-6)


def test_lut_of_65536_entries_and_packed_bytes(make_dicom):
    array = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    whole = make_dicom(array, VOILUTSequence=lut([0, 0, 16], list(range(65536))))
    np.testing.assert_allclose(read_radiograph(whole).pixels, array / 65535, atol=1e-6)
    packed = bytes(range(256))
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    short = make_dicom(array, VOILUTSequence=lut([256, 0, 8], packed, "OW"))
    np.testing.assert_allclose(read_radiograph(short).pixels, array / 255, atol=1e-6)


def test_lut_of_signed_input_begins_below_zero(make_dicom):
    array = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    ramp = [257 * i for i in range(256)]
    dataset = make_dicom(array, VOILUTSequence=lut([256, 65536 - 128, 16], ramp))
    np.testing.assert_allclose(read_radiograph(dataset).pixels, (array + 128) / 255, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"WindowCenter": 2048, "WindowWidth": 0},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 100},
        {"VOILUTSequence": lut([4096, 0, 16], [1, 2, 3])},
        {"RescaleSlope": 0, "RescaleIntercept": 0},
    ],
    ids=["width 0", "empty", "no width", "short lut", "slope 0"],
)
def test_unusable_display_falls_back_and_says_so(make_dicom, ramp, fields):
    plain = read_radiograph(make_dicom(ramp, BitsStored=12))
    fallen = read_radiograph(make_dicom(ramp, BitsStored=12, **fields))
    np.testing.assert_array_equal(fallen.pixels, plain.pixels)
    assert fallen.record.window.startswith("percentile")
    assert any("not applied" in warning for warning in fallen.record.warnings)
    assert not plain.record.warnings


ONE_LUT, TWO_LUTS = (lut([TOP + 1, 0, 16], CURVE) for _ in range(2))
TWO_LUTS.extend(lut([TOP + 1, 0, 16], NEGATIVE_CURVE))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"WindowCenter": 1000, "WindowWidth": 2000}, {"WindowCenter": [1000, 50], "WindowWidth": [2000, 10]}),
        ({"VOILUTSequence": ONE_LUT}, {"VOILUTSequence": TWO_LUTS}),
    ],
    ids=["window", "lut"],
)
def test_the_first_of_several_displays_is_applied_and_recorded(make_dicom, ramp, one, two):
    several, single = (read_radiograph(make_dicom(ramp, BitsStored=12, **fields)) for fields in (two, one))
    np.testing.assert_array_equal(several.pixels, single.pixels)
    assert any("first of 2" in warning for warning in several.record.warnings)


def test_percentile_window_ignores_collimator_padding_and_saturation(make_dicom):
    rng = np.random.default_rng(1)
    anatomy = rng.normal(2000, 200, (200, 160))
    exposed = anatomy.astype(np.uint16)
    framed = np.zeros((300, 260), np.uint16)
    framed[50:250, 50:210] = exposed
    framed[55:65, 60:90] = 65535  # a lead marker
    framed[:20] = 40000  # padding
    radiograph = read_radiograph(make_dicom(framed, PixelPaddingValue=40000))
    low, high = np.percentile(anatomy, (0.5, 99.5))
    inside = radiograph.pixels[100:240, 60:200]
    expected = np.clip((framed[100:240, 60:200] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(inside, expected, atol=0.03)
    np.testing.assert_allclose(radiograph.record.crop, (50, 50, 250, 210), atol=1)


@pytest.mark.parametrize("saturated", [4, 7, 13])
def test_blank_film_and_saturation_are_left_out_alike_in_both_polarities(make_dicom, saturated):
    rng = np.random.default_rng(2)
    values = rng.integers(1000, 2000, (100, 100)).astype(np.uint16)
    values[np.tri(100, dtype=bool)] = 0
    values[np.arange(saturated), 99 - np.arange(saturated)] = TOP
    one = read_radiograph(make_dicom(values, BitsStored=12))
    two = read_radiograph(make_dicom(TOP - values, BitsStored=12, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(one.pixels, two.pixels, rtol=0, atol=1e-6)


@pytest.mark.parametrize("values", [(100, 200), (100, 150, 200)])
def test_an_image_of_few_values_is_not_constant(make_dicom, values):
    array = np.random.default_rng(3).choice(values, (100, 100)).astype(np.uint16)
    shown = read_radiograph(make_dicom(array))
    np.testing.assert_allclose(shown.pixels, (array - 100.0) / 100, atol=1e-6)
    assert not shown.record.warnings
    np.testing.assert_allclose(displayed(read_radiograph(array)), shown.pixels, atol=1e-6)


def test_parts_between_padding_that_share_no_row_and_column_have_a_window(make_dicom):
    array = np.zeros((100, 100), np.uint16)
    array[:40, :40] = np.arange(1, 41)
    array[60:, 60:] = np.arange(1, 41)[:, None]
    record = read_radiograph(make_dicom(array, PixelPaddingValue=0)).record
    assert record.window.startswith("percentile")
    assert record.crop == (0, 0, 100, 100)


def test_eight_bits_without_a_window_are_shown_as_stored(make_dicom):
    array = np.tile(np.arange(60, 200, dtype=np.uint8), (50, 1))
    np.testing.assert_allclose(read_radiograph(make_dicom(array)).pixels, array / 255, atol=1e-6)


def test_constant_image_is_gray_in_both_polarities(make_dicom):
    array = np.full((8, 8), 700, np.uint16)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        radiograph = read_radiograph(make_dicom(array, PhotometricInterpretation=photometric))
        assert (radiograph.pixels == 0.5).all()
        assert any("constant" in warning for warning in radiograph.record.warnings)


@pytest.mark.parametrize("first", [0, -128])
def test_palette_is_looked_up(make_dicom, first):
    array = np.arange(first, first + 256).astype(np.int8 if first else np.uint8).reshape(16, 16)
    dataset = make_dicom(array, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "SS", [256, first, 16])
        table = struct.pack("<256H", *(257 * (255 - i) for i in range(256)))
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table)
    expected = np.linspace(1, 0, 256).reshape(16, 16)
    np.testing.assert_allclose(read_radiograph(dataset).pixels, expected, atol=1e-6)


def test_32_bit_pixels_agree_with_16_bit_ones(make_dicom, ramp):
    window = {
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "PixelPaddingValue": 60,
        "PhotometricInterpretation": "MONOCHROME1",
    }
    narrow = read_radiograph(make_dicom(ramp, **window))
    wide = read_radiograph(make_dicom(ramp.astype(np.uint32), **window))
    np.testing.assert_allclose(wide.pixels, narrow.pixels, atol=1e-6)
    assert wide.record.padded == narrow.record.padded > 0


def test_window_functions_increase(make_dicom):
    values = np.arange(0, 65536, 64, dtype=np.uint16)[None]
    for function, width in itertools.product(("LINEAR", "LINEAR_EXACT", "SIGMOID"), (1, 3.5, 30000)):
        window = {"WindowCenter": 30000, "WindowWidth": width, "VOILUTFunction": function}
        shown = read_radiograph(make_dicom(values, **window)).pixels[0]
        assert (np.diff(shown) >= 0).all()
        assert shown[0] < 0.1 < 0.9 < shown[-1]


SHUTTERS = {
    "RECTANGULAR": (
        {
            "ShutterLeftVerticalEdge": 5,
            "ShutterRightVerticalEdge": 50,
            "ShutterUpperHorizontalEdge": 8,
            "ShutterLowerHorizontalEdge": 30,
        },
        lambda row, column: (column >= 5) & (column <= 50) & (row >= 8) & (row <= 30),
    ),
    "CIRCULAR": (
        {"CenterOfCircularShutter": [20, 26], "RadiusOfCircularShutter": 15},
        lambda row, column: np.hypot(row - 20, column - 26) <= 15,
    ),
    "POLYGONAL": (
        {"VerticesOfThePolygonalShutter": [4, 6, 4, 40, 38, 6]},
        lambda row, column: (row >= 4) & (column >= 6) & ((row - 4) + (column - 6) <= 34),
    ),
}


@pytest.mark.parametrize("bits", [12, 32])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shapes", [*([shape] for shape in SHUTTERS), list(SHUTTERS)], ids="+".join)
def test_what_lies_outside_the_display_shutter_is_black(make_dicom, ramp, shapes, photometric, bits):
    row, column = np.indices(ramp.shape) + 1
    seen = np.logical_and.reduce([SHUTTERS[shape][1](row, column) for shape in shapes])
    fields = {key: value for shape in shapes for key, value in SHUTTERS[shape][0].items()}
    plain = {"PhotometricInterpretation": photometric, "WindowCenter": 2048, "WindowWidth": 4096}
    array = ramp if bits == 12 else ramp.astype(np.uint32)
    whole = read_radiograph(make_dicom(array, **plain))
    shown = read_radiograph(make_dicom(array, ShutterShape=shapes, **fields, **plain))
    np.testing.assert_allclose(shown.pixels, np.where(seen, whole.pixels, 0), atol=1e-6)
    assert 0.1 < seen.mean() < 0.9
    assert any("shutter" in warning for warning in shown.record.warnings)


def test_a_percentile_window_is_measured_inside_the_shutter(make_dicom, ramp):
    scattered = ramp.copy()
    scattered[:7], scattered[30:] = 9000, 9001
    fields = {"ShutterShape": "RECTANGULAR", **SHUTTERS["RECTANGULAR"][0]}
    one, two = (read_radiograph(make_dicom(array, **fields)) for array in (ramp, scattered))
    np.testing.assert_array_equal(one.pixels, two.pixels)
    assert one.record.window == two.record.window


@pytest.mark.parametrize(
    "fields",
    [
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": "RECTANGULAR", "ShutterLeftVerticalEdge": 5},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [500, 500], "RadiusOfCircularShutter": 10},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1, 5, 5]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": 7},
        {"ShutterShape": "RECTANGULAR", **dict.fromkeys(SHUTTERS["RECTANGULAR"][0], 0)},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [5, 5], "RadiusOfCircularShutter": 2**31 - 1},
    ],
    ids=["unknown", "no edges", "elsewhere", "two corners", "one number", "zeros", "endless"],
)
def test_a_shutter_that_cannot_be_meant_hides_nothing_and_is_said(make_dicom, ramp, fields):
    plain = read_radiograph(make_dicom(ramp))
    shown = read_radiograph(make_dicom(ramp, **fields))
    np.testing.assert_array_equal(shown.pixels, plain.pixels)
    assert any("not applied" in warning for warning in shown.record.warnings)
