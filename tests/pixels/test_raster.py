"""Rasters and arrays: every mode keeps its range, orientation and colour are undone, frames are not guessed."""

import gzip
import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from mskscreen.errors import DecodeError
from mskscreen.pixels import Limits, read_radiograph

Y, X = np.mgrid[:24, :36]
GRAY = ((X * 7 + Y * 3) % 256).astype(np.uint8)
DEEP = ((X * 1803 + Y * 77) % 65536).astype(np.uint16)


def saved(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_eight_bits_are_read_exactly(kind, options, tmp_path):
    path = tmp_path / "misleading.dcm"  # the content decides, not the name
    path.write_bytes(saved(Image.fromarray(GRAY), kind, **options))
    radiograph = read_radiograph(path)
    np.testing.assert_array_equal(radiograph.pixels, np.float32(GRAY) / np.float32(255))
    assert radiograph.record.format == kind
    assert radiograph.record.bits == 8
    assert radiograph.record.windowed
    assert not radiograph.record.warnings


def test_jpeg_is_near():
    shown = read_radiograph(saved(Image.fromarray(X.astype(np.uint8) * 7), "JPEG", quality=95)).pixels
    np.testing.assert_allclose(shown, X * 7 / 255, atol=0.03)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw"])
def test_sixteen_bits_keep_their_range(kind, compression):
    options = {"compression": compression} if kind == "TIFF" else {}
    radiograph = read_radiograph(saved(Image.fromarray(DEEP), kind, **options))
    np.testing.assert_allclose(radiograph.pixels, DEEP / 65535, atol=1e-7)
    assert radiograph.record.bits == 16
    assert not radiograph.record.windowed


def test_big_endian_and_white_is_zero_tiffs():
    big = Image.frombytes("I;16B", (36, 24), DEEP.astype(">u2").tobytes())
    np.testing.assert_allclose(read_radiograph(saved(big, "TIFF")).pixels, DEEP / 65535, atol=1e-7)
    for values, top in ((DEEP, 65535), (GRAY, 255)):
        negative = read_radiograph(tiff(values, 0, 1, 1))
        np.testing.assert_allclose(negative.pixels, 1 - values / top, atol=1e-6)
        assert negative.record.inverted


def tiff(samples, photometric, sample_format, planes, order="<"):
    """An uncompressed TIFF (TIFF 6.0, section 2) of little or big-endian samples."""
    count = planes if planes > 1 else 1
    size = GRAY.size * samples.itemsize
    lists = {258: [8 * samples.itemsize] * count, 273: [size * i for i in range(count)], 279: [size] * count}
    single = {256: 36, 257: 24, 259: 1, 262: photometric, 277: count, 278: 24, 284: 2 if planes > 1 else 1}
    fields = {tag: [value] for tag, value in single.items()} | lists | {339: [sample_format] * count}
    begin = 8 + 6 + 12 * len(fields)
    room, values = begin + 4 * sum(map(len, fields.values())), b""
    entries = b""
    for tag in sorted(fields):
        numbers = [value + room if tag == 273 else value for value in fields[tag]]
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        inside = packed if len(numbers) == 1 else struct.pack(order + "I", begin + len(values))
        values += b"" if len(numbers) == 1 else packed
        entries += struct.pack(order + "HHI", tag, 4, len(numbers)) + inside
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, len(fields))
    directory = head + entries + struct.pack(order + "I", 0) + values
    return directory.ljust(room, b"\0") + samples.tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("sample", ["u1", "u2", "i2"])
def test_tiffs_of_either_order_hold_what_was_written(order, sample):
    values = GRAY.astype(order + sample)
    radiograph = read_radiograph(tiff(values, 1, 2 if sample == "i2" else 1, 1, order))
    np.testing.assert_allclose(radiograph.pixels, GRAY / (65535 if sample == "u2" else 255), atol=1e-6)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("sample", "photometric", "sample_format", "planes"),
    [("i1", 1, 2, 1), ("u2", 2, 1, 3), ("u2", 2, 1, 4), ("f8", 1, 3, 1)],
)
def test_a_tiff_that_would_be_misread_is_refused(order, sample, photometric, sample_format, planes):
    samples = np.stack([GRAY.astype(order + sample)] * planes)
    with pytest.raises(DecodeError, match="a TIFF of a kind that is not read; save it as gray of 8 or 16 bits"):
        read_radiograph(tiff(samples, photometric, sample_format, planes, order))


@pytest.mark.parametrize(
    ("values", "top"), [(GRAY, 255), (DEEP, 65535), (DEEP.astype(np.int64) * 20000, 2**32 - 1)]
)
def test_32_bit_integers_are_divided_by_the_narrowest_range(values, top):
    values = values.astype(np.uint32)
    image = Image.fromarray(values.view(np.int32))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 1  # unsigned samples, which Pillow itself does not write
    for source in (values, saved(image, "TIFF", tiffinfo=tags)):
        np.testing.assert_allclose(read_radiograph(source).pixels, values / top, atol=1e-6)


def test_bilevel():
    bits = GRAY > 100
    np.testing.assert_array_equal(read_radiograph(saved(Image.fromarray(bits), "PNG")).pixels, bits)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA", "LA"])
def test_gray_in_colour_modes_stays_gray(mode):
    image = Image.fromarray(GRAY).convert(mode)
    radiograph = read_radiograph(saved(image, "TIFF" if mode == "CMYK" else "PNG"))
    np.testing.assert_allclose(radiograph.pixels, GRAY / 255, atol=1.01 / 255)
    assert not radiograph.record.warnings


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_black(mode):
    image = Image.fromarray(GRAY).convert(mode)
    alpha = (255 - X * 7).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha))
    expected = GRAY / 255 * (alpha / 255)
    np.testing.assert_allclose(read_radiograph(saved(image, "PNG")).pixels, expected, atol=1e-6)


def test_transparent_palette_entry_is_black():
    image = Image.fromarray(GRAY).convert("P")
    shown = read_radiograph(saved(image, "PNG", transparency=7)).pixels
    index = np.asarray(image)
    assert (index == 7).any()
    assert not shown[index == 7].any()
    np.testing.assert_allclose(shown[index != 7], GRAY[index != 7] / 255, atol=1.01 / 255)


def test_true_colour_is_luminance_with_a_warning():
    red = np.zeros((24, 36, 3), np.uint8)
    red[..., 0] = GRAY
    for source in (saved(Image.fromarray(red), "PNG"), red):
        radiograph = read_radiograph(source)
        np.testing.assert_allclose(radiograph.pixels, 0.299 * GRAY / 255, atol=1 / 255)
        assert any("colour" in warning for warning in radiograph.record.warnings)


def test_chroma_rounding_of_jpeg_is_no_colour():
    image = Image.fromarray(np.stack([GRAY] * 3, -1))
    assert not read_radiograph(saved(image, "JPEG", quality=75)).record.warnings


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_is_undone_once(kind, orientation):
    image = Image.fromarray(X.astype(np.uint8) * 7)
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("L"))
    radiograph = read_radiograph(data)
    np.testing.assert_allclose(radiograph.pixels, upright / 255, atol=1e-6)
    assert radiograph.record.orientation == orientation
    assert radiograph.pixels.flags.c_contiguous


def test_icc_is_ignored_and_recorded():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = (saved(Image.fromarray(GRAY), "PNG", icc_profile=icc) for icc in (None, profile))
    plain, tagged = read_radiograph(plain), read_radiograph(tagged)
    np.testing.assert_array_equal(plain.pixels, tagged.pixels)
    assert (plain.record.icc_ignored, tagged.record.icc_ignored) == (False, True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused_with_their_count(kind):
    frames = [Image.fromarray(np.roll(GRAY, 9 * i, 1)) for i in range(3)]
    with pytest.raises(DecodeError, match="holds 3 frames"):
        read_radiograph(saved(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "JPEG2000"])
def test_other_formats_are_refused(kind):
    with pytest.raises(DecodeError, match="none of DICOM, PNG"):
        read_radiograph(saved(Image.fromarray(GRAY), kind))


def test_float_rasters_are_refused_and_float_arrays_must_be_canonical():
    with pytest.raises(DecodeError, match="floating-point"):
        read_radiograph(saved(Image.fromarray(GRAY.astype(np.float32)), "TIFF"))
    canonical = (GRAY / 255).astype(np.float32)
    radiograph = read_radiograph(canonical)
    np.testing.assert_array_equal(radiograph.pixels, canonical)
    assert radiograph.record.windowed
    for bad in (canonical * 2, canonical - 1, np.where(GRAY > 3, np.nan, canonical)):
        with pytest.raises(DecodeError, match=r"\[0, 1\]"):
            read_radiograph(bad)


@given(
    hnp.arrays(
        st.sampled_from(
            [np.bool_, np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float64, np.complex64]
        ),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_array_gives_a_radiograph_or_a_decode_error(array):
    try:
        radiograph = read_radiograph(array)
    except DecodeError:
        return
    assert radiograph.pixels.dtype == np.float32
    assert ((radiograph.pixels >= 0) & (radiograph.pixels <= 1)).all()
    assert radiograph.pixels.shape == array.shape[:2]


def test_sources_that_are_no_image_are_named(tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for source in (tmp_path, tmp_path / "absent.png", tmp_path / "notes.png", str(tmp_path / "empty.png")):
        with pytest.raises(DecodeError, match=str(source).rsplit("/", 1)[-1]):
            read_radiograph(source)
    for source in (b"", 7, None):
        with pytest.raises(DecodeError):
            read_radiograph(source)


def test_limits_are_settable():
    data = saved(Image.fromarray(GRAY), "PNG")
    limits = [Limits(file_bytes=len(data) - 1), Limits(pixels=GRAY.size - 1), Limits(decoded_bytes=GRAY.size - 1)]
    for limit in limits:
        with pytest.raises(DecodeError, match=r"raise --max-pixels or Limits\."):
            read_radiograph(data, limit)
    exact = Limits(file_bytes=len(data), pixels=GRAY.size, decoded_bytes=GRAY.size)
    assert read_radiograph(data, exact).pixels.shape == GRAY.shape


def test_an_archive_is_to_be_unpacked():
    for archive in (b"PK\3\4" + bytes(200), gzip.compress(saved(Image.fromarray(GRAY), "PNG"))):
        with pytest.raises(DecodeError, match="unpack it"):
            read_radiograph(archive)
    with pytest.raises(DecodeError, match="convert it to one"):
        read_radiograph(b"PK" + bytes(200))
