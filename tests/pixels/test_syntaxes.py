"""The same image in each transfer syntax: lossless ones give the identical array, lossy ones a near one."""

from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, get_frame

from mskscreen.errors import DecodeError
from mskscreen.pixels import Limits, read_radiograph

KINDS = {
    "12 of 16 bits": lambda ramp: (ramp, {"BitsStored": 12, "PixelPaddingValue": 60}),
    "16 bits": lambda ramp: (ramp * 16, {"WindowCenter": 30000, "WindowWidth": 40000}),
    "signed": lambda ramp: (
        (ramp.astype(np.int16) - 2048).astype(np.int16),
        {"WindowCenter": 0, "WindowWidth": 3000},
    ),
    "8 bits": lambda ramp: ((ramp // 16).astype(np.uint8), {}),
    "colour": lambda ramp: (np.stack([ramp // 16, ramp // 32, 255 - ramp // 16], -1).astype(np.uint8), {}),
}
SYNTAXES = {
    "implicit": uid.ImplicitVRLittleEndian,
    "big endian": uid.ExplicitVRBigEndian,
    "deflated": uid.DeflatedExplicitVRLittleEndian,
    "rle": uid.RLELossless,
    "jpeg lossless": uid.JPEGLossless,
    "jpeg lossless sv1": uid.JPEGLosslessSV1,
    "jpeg-ls": uid.JPEGLSLossless,
    "jpeg 2000": uid.JPEG2000Lossless,
}


def encode(dataset, syntax, file_bytes, folder):
    """The bytes of a DICOM file that holds `dataset` in `syntax`."""
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return encode_by_gdcm(file_bytes(dataset), syntax, folder)
    if syntax == uid.JPEG2000Lossless:
        compress_jpeg_2000(dataset)
    elif syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        if syntax == uid.ExplicitVRBigEndian and dataset.BitsAllocated == 16:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
    return file_bytes(dataset)


def compress_jpeg_2000(dataset):
    frame = encode_array(dataset.pixel_array, dataset.BitsStored, int(dataset.SamplesPerPixel == 3))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless


def encode_by_gdcm(data, syntax, folder):
    source, target = str(folder / "plain.dcm"), str(folder / "jpeg.dcm")
    Path(source).write_bytes(data)
    reader = gdcm.ImageReader()
    reader.SetFileName(source)
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(target)
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return Path(target).read_bytes()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_lossless_syntax_gives_the_identical_array(
    make_dicom, file_bytes, ramp, kind, syntax, tmp_path, capfd
):
    array, fields = KINDS[kind](ramp)
    plain = read_radiograph(file_bytes(make_dicom(array, **fields)))
    encoded = encode(make_dicom(array, **fields), SYNTAXES[syntax], file_bytes, tmp_path)
    capfd.readouterr()
    if syntax == "deflated":
        with pytest.raises(DecodeError, match=r"dcmconv \+te.* Limits\(deflated=True\)"):
            read_radiograph(encoded)
    radiograph = read_radiograph(encoded, Limits(deflated=True))
    np.testing.assert_array_equal(radiograph.pixels, plain.pixels)
    assert np.ptp(plain.pixels) > 0.3
    assert radiograph.record.window == plain.record.window
    if syntax != "deflated":  # read as what it is once inflated
        assert radiograph.record.transfer_syntax == SYNTAXES[syntax].name
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K])
def test_htj2k_gives_the_identical_array(make_dicom, file_bytes, ramp, syntax):
    """The codestream was written by OpenJPH 0.x through the package itk-ioopenjph, reversible."""
    frame = (Path(__file__).parent / "ramp_htj2k.j2c").read_bytes()
    dataset = make_dicom(ramp, BitsStored=12, syntax=syntax, PixelData=encapsulate([frame]))
    dataset["PixelData"].VR = "OB"
    plain = read_radiograph(make_dicom(ramp, BitsStored=12))
    np.testing.assert_array_equal(read_radiograph(file_bytes(dataset)).pixels, plain.pixels)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_jpeg_of_eight_bits_equals_the_same_jpeg_as_a_raster(make_dicom, file_bytes, ramp, syntax):
    file = BytesIO()
    Image.fromarray((ramp // 16).astype(np.uint8)).save(file, "JPEG", quality=90)
    dataset = make_dicom((ramp // 16).astype(np.uint8), syntax=syntax, PixelData=encapsulate([file.getvalue()]))
    shown = read_radiograph(file_bytes(dataset)).pixels
    np.testing.assert_allclose(shown, read_radiograph(file.getvalue()).pixels, atol=1.01 / 255)


def test_jpeg_extended_of_twelve_bits(make_dicom, file_bytes, ramp, tmp_path, capfd):
    dataset = make_dicom(ramp, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    encoded = encode_by_gdcm(file_bytes(dataset), uid.JPEGExtended12Bit, tmp_path)
    capfd.readouterr()
    shown = read_radiograph(encoded)
    assert shown.record.transfer_syntax == uid.JPEGExtended12Bit.name
    np.testing.assert_allclose(shown.pixels, read_radiograph(dataset).pixels, atol=0.01)
    assert capfd.readouterr().err == ""


def test_unknown_syntax_is_named(make_dicom, ramp):
    with pytest.raises(DecodeError, match="transfer syntax MPEG2"):
        read_radiograph(make_dicom(ramp, syntax=uid.MPEG2MPML))


@pytest.mark.parametrize("field", ["Rows", "Columns"])
@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.HTJ2K, uid.JPEGBaseline8Bit])
def test_header_and_codestream_must_agree(make_dicom, file_bytes, ramp, syntax, field):
    if syntax == uid.HTJ2K:
        frame = (Path(__file__).parent / "ramp_htj2k.j2c").read_bytes()
        dataset = make_dicom(ramp, syntax=syntax, PixelData=encapsulate([frame]))
    elif syntax == uid.JPEGBaseline8Bit:
        file = BytesIO()
        Image.fromarray((ramp // 16).astype(np.uint8)).save(file, "JPEG")
        dataset = make_dicom(
            (ramp // 16).astype(np.uint8), syntax=syntax, PixelData=encapsulate([file.getvalue()])
        )
    else:
        dataset = make_dicom(ramp)
        compress_jpeg_2000(dataset) if syntax == uid.JPEG2000Lossless else dataset.compress(syntax)
    setattr(dataset, field, 39)
    with pytest.raises(DecodeError, match=field):
        read_radiograph(file_bytes(dataset))


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_where_the_bits_lay_before_they_were_encoded_does_not_matter(
    make_dicom, file_bytes, ramp, syntax, tmp_path
):
    data = encode(make_dicom(ramp, BitsStored=12), syntax, file_bytes, tmp_path)
    dataset = dcmread(BytesIO(data))
    dataset.HighBit = 15
    np.testing.assert_array_equal(read_radiograph(dataset).pixels, read_radiograph(data).pixels)


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1])
def test_a_codestream_without_its_end_is_truncated(make_dicom, file_bytes, ramp, syntax, tmp_path):
    dataset = dcmread(BytesIO(encode(make_dicom(ramp), syntax, file_bytes, tmp_path)))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) * 3 // 4]])
    with pytest.raises(DecodeError, match="no end marker"):
        read_radiograph(file_bytes(dataset))


def test_what_makes_gdcm_abort_is_an_error(make_dicom, file_bytes, tmp_path):
    """An Adobe marker with an unknown colour transform ends the process that GDCM runs in."""
    rgb = np.random.default_rng(6).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    dataset = dcmread(BytesIO(encode_by_gdcm(file_bytes(make_dicom(rgb)), uid.JPEGLosslessSV1, tmp_path)))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    at = frame.index(b"Adobe") + 11
    dataset.PixelData = encapsulate([frame[:at] + b"\xea" + frame[at + 1 :]])
    with pytest.raises(DecodeError, match="corrupt"):
        read_radiograph(file_bytes(dataset))


def test_eight_bits_in_words_of_big_endian_are_in_order(make_dicom, file_bytes):
    array = np.arange(10, 250, 10, dtype=np.uint8).reshape(4, 6)
    dataset = make_dicom(array, syntax=uid.ExplicitVRBigEndian)
    dataset.PixelData = array.view("<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"
    np.testing.assert_array_equal(read_radiograph(file_bytes(dataset)).pixels, read_radiograph(array).pixels)
