"""Lying headers, truncated files, bombs and deep nesting end in one clear error, soon and within bounds."""

import json
import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from mskscreen.errors import DecodeError, LimitError
from mskscreen.pixels import Limits, read_radiograph

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pytest sets aside the filter of the package


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(columns, rows, data, extra=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(tags, body=b"", pages=1):
    """A little-endian TIFF of `pages` equal directories; values of tags are LONG."""
    file = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        size = 2 + 12 * len(tags) + 4
        following = len(file) + size if page + 1 < pages else 0
        file += struct.pack("<H", len(tags))
        file += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
        file += struct.pack("<I", following)
    return file + body


def element(tag, vr, body, length=None):
    size = len(body) if length is None else length
    long = vr in ("OB", "OW", "SQ", "UN")
    return (
        struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
        + struct.pack("<HI" if long else "<H", *((0, size) if long else (size,)))
        + body
    )


def dicom(body, syntax=uid.ExplicitVRLittleEndian):
    name = str(syntax).encode()
    return bytes(128) + b"DICM" + element(0x00020010, "UI", name + b"\0" * (len(name) % 2)) + body


ITEM, ITEM_END, SEQUENCE_END = (
    struct.pack("<HHI", 0xFFFE, tag, size) for tag, size in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
)
PRIVATE = 0x00091010


def nested_undefined(depth, vr="SQ"):
    opened = element(PRIVATE, vr, b"", 0xFFFFFFFF)
    if vr == "UN":  # inside, implicit little endian rules
        opened += (ITEM + struct.pack("<HHI", 9, 0x1010, 0xFFFFFFFF)) * (depth - 1) + ITEM
    else:
        opened = (opened + ITEM) * depth
    return opened + (ITEM_END + SEQUENCE_END) * depth


def nested_defined(depth):
    inner = b""
    for _ in range(depth):
        inner = element(PRIVATE, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner)
    return inner


def image(rows, columns, data, *, allocated=16, frames=None, length=None, vr="OW"):
    values = [(0x00280002, 1), (0x00280010, rows), (0x00280011, columns), (0x00280100, allocated)]
    values += [(0x00280101, allocated), (0x00280102, allocated - 1), (0x00280103, 0)]
    body = {tag: element(tag, "US", struct.pack("<H", value)) for tag, value in values}
    body[0x00280004] = element(0x00280004, "CS", b"MONOCHROME2 ")
    if frames:
        body[0x00280008] = element(0x00280008, "IS", str(frames).encode().ljust(8))
    return b"".join(body[tag] for tag in sorted(body)) + element(0x7FE00010, vr, data, length)


def siz(columns, rows, tile):
    body = struct.pack(">H8IHBBB", 0, columns, rows, 0, 0, tile, tile, 0, 0, 1, 15, 1, 1)
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body + b"\xff\xd9"


def sof(columns, rows):
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, rows, columns, 1) + b"\1\x11\0" + b"\xff\xd9"


def packed(frame, rows, columns, syntax, **fields):
    return dicom(
        image(rows, columns, encapsulate([frame]), vr="OB", length=0xFFFFFFFF, **fields) + SEQUENCE_END, syntax
    )


def deflate(body):
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(body) + squeeze.flush()


LONG_RUNS = struct.pack("<16I", 2, 64, 64 + (4 << 20), *[0] * 13) + b"\x81\0" * (4 << 20)
GRAY_TIFF = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: 4096}
WEBP_CANVAS = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\x3f\0" * 2


def hostile_files():
    zeros = zlib.compress(bytes(160 << 20))
    yield "png-lying-size", png(100_000, 100_000, zlib.compress(b"\0"))
    yield "png-largest-size", png(2**31 - 1, 2**31 - 1, b"")
    yield "png-short-data", png(2000, 2000, zlib.compress(b"\0" * 100))
    yield "png-bomb", png(17_000, 17_000, zeros)
    yield "png-profile-bomb", png(8, 8, zlib.compress(bytes(72)), chunk(b"iCCP", b"x\0\0" + zeros))
    yield "png-text-bomb", png(8, 8, zlib.compress(bytes(70)), chunk(b"zTXt", b"x\0\0" + zeros))
    yield "jpeg-lying-size", sof(65_000, 65_000)
    yield "jpeg-endless-scans", sof(2000, 2000)[:-2] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 10_000
    yield (
        "bmp-lying-size",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield "webp-lying-canvas", b"RIFF" + struct.pack("<I", len(WEBP_CANVAS) + 4) + b"WEBP" + WEBP_CANVAS
    yield "tiff-lying-size", tiff(GRAY_TIFF | {256: 2**31 - 1, 257: 2**31 - 1})
    yield (
        "tiff-lying-tile",
        tiff({256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 2**30, 323: 64, 324: 8, 325: 64}),
    )
    yield "tiff-lying-strip", tiff(GRAY_TIFF | {259: 8, 278: 2**31 - 1, 279: 2**31 - 1})
    yield (
        "tiff-bomb",
        tiff(GRAY_TIFF | {259: 8, 273: 8 + 2 + 12 * 9 + 4, 279: len(zeros), 256: 40_000, 257: 40_000}, zeros),
    )
    yield "tiff-many-pages", tiff(GRAY_TIFF, pages=20_000)
    yield "dicom-lying-size", dicom(image(65_535, 65_535, bytes(64)))
    yield "dicom-lying-frames", dicom(image(64, 64, bytes(64 * 64 * 2), frames=2_000_000))
    yield "dicom-short-pixels", dicom(image(1000, 1000, bytes(64)))
    yield "dicom-lying-length", dicom(image(64, 64, bytes(64), length=0xFFFFFFFE))
    yield "dicom-lying-element", dicom(element(PRIVATE, "UN", b"", 0xFFFFFFF0) + image(8, 8, bytes(128)))
    yield "dicom-nested-undefined", dicom(nested_undefined(20_000) + image(8, 8, bytes(128)))
    yield "dicom-nested-unknown", dicom(nested_undefined(20_000, "UN") + image(8, 8, bytes(128)))
    yield "dicom-nested-defined", dicom(nested_defined(1500) + image(8, 8, bytes(128)))
    yield "dicom-many-elements", dicom(element(PRIVATE, "US", b"\0\0") * 200_000 + image(8, 8, bytes(128)))
    yield "dicom-deflated-bomb", dicom(deflate(bytes(160 << 20)), uid.DeflatedExplicitVRLittleEndian)
    yield "dicom-deflated-nested", dicom(deflate(nested_undefined(200_000)), uid.DeflatedExplicitVRLittleEndian)
    yield "dicom-rle-bomb", packed(LONG_RUNS, 64, 64, uid.RLELossless) + b"\0"
    yield "dicom-rle-lying-header", packed(struct.pack("<16I", *[0xFFFFFFFF] * 16), 64, 64, uid.RLELossless)
    yield "dicom-j2k-lying-size", packed(siz(60_000, 60_000, 60_000), 64, 64, uid.JPEG2000Lossless)
    yield "dicom-j2k-empty", packed(siz(64, 64, 64), 64, 64, uid.JPEG2000Lossless)
    yield "dicom-j2k-tiles", packed(siz(1024, 1024, 1), 1024, 1024, uid.JPEG2000Lossless)
    yield "dicom-jpeg-lying-size", packed(sof(65_000, 65_000), 64, 64, uid.JPEGBaseline8Bit, allocated=8)
    yield "dicom-jpeg-empty", packed(sof(64, 64), 64, 64, uid.JPEGBaseline8Bit, allocated=8)
    fragment = encapsulate([b"\xff\xd8" + bytes(60)])
    lying = fragment[:12] + struct.pack("<I", 0xFFFFFFF0) + fragment[16:]
    yield (
        "dicom-lying-fragment",
        dicom(image(64, 64, lying, vr="OB", length=0xFFFFFFFF) + SEQUENCE_END, uid.JPEGBaseline8Bit),
    )


# Its planes are what the header says; what the runs would expand to beyond them is never written.
DECODES = {"dicom-rle-bomb"}


# Where another check would refuse the file later and for another reason, the words that say which one did.
SAYS = {"webp-lying-canvas": "more than the limit", "jpeg-endless-scans": "scans", "dicom-j2k-tiles": "tiles"}


def test_hostile_files_end_in_one_clear_error_within_bounds(tmp_path):
    names = []
    for name, data in hostile_files():
        (tmp_path / name).write_bytes(data)
        names.append(name)
    one_arena = os.environ | {"MALLOC_ARENA_MAX": "1"}  # every other one takes address space that nobody uses
    done = subprocess.run(
        [sys.executable, HERE / "hostile.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env=one_arena,
    )
    outcomes = dict(json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0, (sorted(set(names) - set(outcomes))[:1], done.stderr[-500:])
    assert set(outcomes) == set(names)
    for name, outcome in outcomes.items():
        assert (outcome == "decoded") == (name in DECODES), (name, outcome)
        if name in DECODES:
            continue
        assert outcome.startswith(f"{name}: "), outcome
        assert "\n" not in outcome
        assert "more memory than there is" not in outcome, outcome
        assert SAYS.get(name, "") in outcome


def raster(array, kind, **options):
    file = BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def whole_files(make_dicom, file_bytes, ramp):
    """One small file of each format."""
    byte = (ramp // 16).astype(np.uint8)
    files = {kind: raster(byte, kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")}
    files["PNG of 16 bits"] = raster(ramp, "PNG")
    files["TIFF deflated"] = raster(ramp, "TIFF", compression="tiff_deflate")
    files["DICOM"] = file_bytes(make_dicom(ramp))
    files["DICOM deflated"] = file_bytes(make_dicom(ramp, syntax=uid.DeflatedExplicitVRLittleEndian))
    for syntax in (uid.RLELossless, uid.JPEGLSLossless):
        dataset = make_dicom(ramp)
        dataset.compress(syntax)
        files[syntax.name] = file_bytes(dataset)
    frames = {uid.JPEGBaseline8Bit: files["JPEG"], uid.HTJ2KLossless: (HERE / "ramp_htj2k.j2c").read_bytes()}
    for syntax, frame in frames.items():
        dataset = make_dicom(byte if syntax == uid.JPEGBaseline8Bit else ramp, syntax=syntax)
        dataset.PixelData = encapsulate([frame])
        files[syntax.name] = file_bytes(dataset)
    return files


def test_a_truncated_file_is_an_error_or_complete(whole_files):
    """A prefix may lack bytes that say nothing (an end marker, padding); it then gives the very same array."""
    for kind, data in whole_files.items():
        limits = Limits(deflated=True)
        whole = read_radiograph(data, limits).pixels
        cuts = set(np.linspace(0, len(data) - 1, 60).astype(int)) | set(range(len(data) - 12, len(data)))
        complete = 0
        for cut in sorted(cuts):
            try:
                shown = read_radiograph(data[:cut], limits).pixels
            except DecodeError:
                continue
            complete += 1
            np.testing.assert_array_equal(shown, whole, err_msg=f"{kind} cut at {cut} of {len(data)}")
        assert complete <= 13, kind


@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_flipped_bytes_give_a_radiograph_or_a_decode_error(whole_files, flips):
    for data in whole_files.values():
        damaged = bytearray(data)
        for where, flip in flips:
            damaged[int(where * len(damaged))] ^= flip
        try:
            pixels = read_radiograph(bytes(damaged), Limits(pixels=1 << 20, deflated=True)).pixels
        except DecodeError:
            continue
        assert ((pixels >= 0) & (pixels <= 1)).all()


@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_damaged_png_gives_no_other_picture(whole_files, where, flip):
    for kind in ("PNG", "PNG of 16 bits"):
        data = bytearray(whole_files[kind])
        data[int(where * len(data))] ^= flip
        with suppress(DecodeError):
            np.testing.assert_array_equal(
                read_radiograph(bytes(data)).pixels, read_radiograph(whole_files[kind]).pixels
            )


@pytest.mark.parametrize("make", [nested_undefined, nested_defined])
def test_nesting_up_to_the_limit_is_read(make):
    body = image(8, 8, bytes(range(128)))
    assert read_radiograph(dicom(make(16) + body)).pixels.shape == (8, 8)
    with pytest.raises(LimitError, match="nested more than 16"):
        read_radiograph(dicom(make(17) + body))
    assert read_radiograph(dicom(make(17) + body), Limits(nesting=17)).pixels.shape == (8, 8)


MANY, DEEP = element(PRIVATE, "US", b"\0\0") * 110_000, nested_undefined(40)
HIDING = {
    "sequence in the meta group": element(0x00020200, "SQ", SEQUENCE_END, 0xFFFFFFFF),
    "meta element beyond the end": element(0x00020200, "UN", SEQUENCE_END, 0xFFFFFFFF),
    "group that looks like big endian": element(0x08000001, "US", b""),
    "command in implicit VR": struct.pack("<HHIH", 0, 0x0800, 2, 0),
    "element in implicit VR": element(PRIVATE, "US", b"\0\0")
    + struct.pack("<HHI", 9, 0x1010, 65536)
    + b"\0"
    + image(8, 8, b"").ljust(65535, b"\0"),
}


@pytest.mark.parametrize("follows", [MANY, DEEP], ids=["many", "deep"])
@pytest.mark.parametrize("hiding", HIDING)
def test_no_element_hides_from_the_limits_what_follows_it(hiding, follows):
    body = HIDING[hiding] + follows + image(8, 8, bytes(128))
    with pytest.raises(DecodeError, match=r"nested more|more than 100,000|meta information"):
        read_radiograph(dicom(body))


@pytest.mark.parametrize(
    "body",
    [
        element(PRIVATE, "OB", element(PRIVATE, "UN", b"", 0xFFFFFFF0), 0xFFFFFFFF) + SEQUENCE_END + 2 * MANY,
        image(8, 8, bytes(128)) + 2 * MANY,
    ],
    ids=["behind nonsense", "behind the pixels"],
)
def test_elements_that_only_the_parser_sees_count_too(body):
    with pytest.raises(LimitError, match="more than 100,000 DICOM elements"):
        read_radiograph(dicom(body + image(8, 8, bytes(128))))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DecodeError, match="regular file"):
        read_radiograph(tmp_path / "pipe.png")
