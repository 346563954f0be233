"""What a DICOM header says, leaves out and gets wrong."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

from mskscreen.errors import DecodeError
from mskscreen.pixels import FLAG_FOR_PROCESSING, read_radiograph


@pytest.mark.parametrize(
    "fields",
    [{"PresentationIntentType": "FOR PROCESSING"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}],
)
def test_for_processing_is_flagged(make_dicom, ramp, fields):
    assert read_radiograph(make_dicom(ramp, **fields)).record.flags == (FLAG_FOR_PROCESSING,)
    assert read_radiograph(make_dicom(ramp)).record.flags == ()


def test_multi_frame_is_refused_with_its_count(make_dicom, ramp):
    with pytest.raises(DecodeError, match="holds 37 frames"):
        read_radiograph(make_dicom(ramp, NumberOfFrames=37))
    for count in (0, 1):
        assert read_radiograph(make_dicom(ramp, NumberOfFrames=count)).pixels.shape == ramp.shape


@pytest.mark.parametrize("fields", [{"BitsAllocated": 8}, {"Rows": 20}, {"Columns": 28}])
def test_a_header_that_tells_of_half_the_pixel_data_is_refused(make_dicom, ramp, fields):
    with pytest.raises(DecodeError, match=r"PixelData holds 4,480 bytes where .* say 2,240"):
        read_radiograph(make_dicom(ramp, BitsStored=8, **fields))
    assert read_radiograph(make_dicom(ramp, PixelData=ramp.tobytes() + bytes(512))).pixels.shape == ramp.shape


def test_an_image_of_no_bytes_is_said_to_hold_no_pixels(make_dicom, file_bytes, ramp):
    with pytest.raises(DecodeError, match="holds no pixel data"):
        read_radiograph(file_bytes(make_dicom(ramp, PixelData=b"")))


def test_missing_fields_are_assumed_or_named(make_dicom, ramp):
    whole = read_radiograph(make_dicom(ramp)).pixels
    for keyword in ("PixelRepresentation", "BitsStored", "HighBit", "SamplesPerPixel"):
        radiograph = read_radiograph(make_dicom(ramp, **{keyword: None}))
        np.testing.assert_array_equal(radiograph.pixels, whole)
        assert keyword == "HighBit" or any(keyword in warning for warning in radiograph.record.warnings)
    for keyword in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation"):
        with pytest.raises(DecodeError, match=keyword):
            read_radiograph(make_dicom(ramp, **{keyword: None}))


@pytest.mark.parametrize("planar", [0, 1])
def test_secondary_capture_in_colour_is_its_luminance(make_dicom, planar):
    gray = np.random.default_rng(2).integers(0, 256, (20, 30), dtype=np.uint8)
    rgb = np.stack([gray] * 3, axis=-1)
    layout = make_dicom(rgb)
    layout.PlanarConfiguration = planar
    if planar:
        layout.PixelData = np.moveaxis(rgb, -1, 0).tobytes()
    radiograph = read_radiograph(layout)
    np.testing.assert_allclose(radiograph.pixels, gray / 255, atol=1e-6)
    assert not radiograph.record.warnings
    rgb[..., 0] //= 2
    assert any("colour" in warning for warning in read_radiograph(make_dicom(rgb)).record.warnings)


def test_record_is_json_without_the_patient(make_dicom, file_bytes, ramp, tmp_path):
    path = tmp_path / "positive"
    path.write_bytes(file_bytes(make_dicom(ramp, BodyPartExamined="HAND", ViewPosition="PA")))
    record = read_radiograph(path).record
    text = json.dumps(record.to_dict())
    assert "SECRET" not in text.upper()
    assert str(tmp_path) not in text
    assert record.dicom["patient_id"] == "SECRET-ID"
    assert record.to_dict()["dicom"]["body_part_examined"] == "HAND"
    assert record.digest == read_radiograph(path).record.digest
    other = read_radiograph(make_dicom(ramp ^ 1)).record
    assert other.digest != record.digest


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.1, True)),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.2, 0.1]}, (0.1, True)),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.16, 0.08]}, (0.08, False)),
        ({"PixelSpacing": [-1, -1]}, None),
    ],
)
def test_spacing_is_that_of_columns_and_calibrated_where_it_differs_from_the_detector(
    make_dicom, ramp, fields, expected
):
    found = read_radiograph(make_dicom(ramp, **fields))
    assert (found.spacing and (found.spacing.mm, found.spacing.at_detector)) == expected
    assert found.record.digest == read_radiograph(make_dicom(ramp)).record.digest


_ds = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0, -1, 1, 1e-300, 1e300, -1e308, "", "NaN", "inf", "1\\2"]))
_us = st.one_of(st.integers(0, 70), st.sampled_from([255, 4096, 65535]))
FIELDS = {
    "Rows": _us,
    "Columns": _us,
    "BitsAllocated": st.sampled_from([0, 1, 8, 12, 16, 32, 64]),
    "BitsStored": st.integers(0, 33),
    "HighBit": st.integers(0, 33),
    "PixelRepresentation": st.integers(0, 3),
    "SamplesPerPixel": st.integers(0, 4),
    "PlanarConfiguration": st.integers(0, 2),
    "NumberOfFrames": st.sampled_from(["", "0", "1", "2", "-1", "99999999"]),
    "PhotometricInterpretation": st.sampled_from(
        ["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "", "HSV"]
    ),
    "PresentationLUTShape": st.sampled_from(["INVERSE", "IDENTITY", "", "LIN OD"]),
    "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "", "CUBIC"]),
    "WindowCenter": _ds,
    "WindowWidth": _ds,
    "RescaleSlope": _ds,
    "RescaleIntercept": _ds,
    "PixelPaddingValue": _us,
    "PixelPaddingRangeLimit": _us,
}
_some_fields = st.lists(st.sampled_from(sorted(FIELDS)), max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


def _explicit_element(keyword, value):
    """An element written by hand: pydicom would refuse to write what this test is after."""
    tag, vr = tag_for_keyword(keyword), dictionary_VR(keyword).split()[0]
    body = struct.pack("<H", value) if vr == "US" else str(value)[:16].encode()
    body += b" " * (len(body) % 2)
    return tag, struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(body)) + body


@settings(max_examples=400, deadline=None)
@given(fields=_some_fields, signed=st.booleans(), seed=st.integers(0, 3))
def test_any_header_gives_a_radiograph_or_a_decode_error(fields, signed, seed):
    base = {
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 12, "Columns": 10,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": int(signed),
    }  # fmt: skip
    elements = dict(_explicit_element(keyword, value) for keyword, value in (base | fields).items())
    pixels = np.random.default_rng(seed).integers(0, 65536, 120).astype("<u2").tobytes()
    data = bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    data += b"".join(elements[tag] for tag in sorted(elements))
    data += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, len(pixels)) + pixels
    try:
        radiograph = read_radiograph(data)
    except DecodeError as error:
        message = str(error)
    else:
        _check_canonical(radiograph)
        return
    # The door's last resort is for corrupt bytes; a header alone must be understood.
    assert "truncated or corrupt" not in message


def _check_canonical(radiograph):
    assert radiograph.pixels.dtype == np.float32
    assert np.isfinite(radiograph.pixels).all()
    assert ((radiograph.pixels >= 0) & (radiograph.pixels <= 1)).all()
    assert radiograph.pixels.shape == (radiograph.record.rows, radiograph.record.columns)
    json.dumps(radiograph.record.to_dict())
