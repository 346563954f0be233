"""Reading fewer pixels than there are: the model sees nearly the same, and only where that can be so."""

import os
import signal
import threading
from io import BytesIO

import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from mskscreen.pixels import Preprocessing, codec_process, read_radiograph

INPUT = Preprocessing.parse("decode|grayscale|window(auto)|letterbox(64,64,bilinear,antialias)|unit")


@pytest.fixture(scope="module")
def waves():
    """A 12-bit image whose waves are 40 pixels long: a shift by one pixel of it moves values by up to 0.08."""
    y, x = np.mgrid[:901, :743]
    return np.rint(2048 + 2000 * np.sin(2 * np.pi * x / 40) * np.cos(2 * np.pi * y / 40)).astype(np.uint16)


@pytest.fixture
def as_jpeg_2000(make_dicom, file_bytes):
    def encode(array, **fields):
        frame = encode_array(np.ascontiguousarray(array), fields.get("BitsStored", 12))
        dataset = make_dicom(array, syntax=uid.JPEG2000Lossless, PixelData=encapsulate([frame]), **fields)
        dataset["PixelData"].VR = "OB"
        return file_bytes(dataset)

    return encode


def assert_same_input(part, whole):
    """The inputs differ by less than a shift of half a pixel would make, and a little more at the very edge."""
    one, other = INPUT(part)[0], INPUT(whole)[0]
    np.testing.assert_allclose(one, other, atol=0.06)
    np.testing.assert_allclose(one[1:-1, 6:-6], other[1:-1, 6:-6], atol=0.02)


def test_jpeg_2000_at_a_fraction_lies_where_the_whole_lies(waves, as_jpeg_2000):
    data = as_jpeg_2000(waves, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    whole, part = read_radiograph(data), read_radiograph(data, enough=INPUT.enough("fast"))
    assert (whole.record.halvings, part.record.halvings) == (0, 2)
    assert part.pixels.size < whole.pixels.size / 12
    assert (part.record.rows, part.record.columns) == waves.shape
    assert np.ptp(INPUT(whole)) > 0.4
    assert_same_input(part, whole)


def test_jpeg_at_a_fraction_lies_where_the_whole_lies(waves):
    file = BytesIO()
    Image.fromarray((waves // 16).astype(np.uint8)).save(file, "JPEG", quality=95)
    whole, part = (read_radiograph(file.getvalue(), enough=enough) for enough in (None, INPUT.enough("fast")))
    assert (whole.record.halvings, part.record.halvings) == (0, 2)
    assert (part.record.rows, part.record.columns) == waves.shape
    assert_same_input(part, whole)


def test_the_window_and_its_area_are_those_of_the_source(waves, as_jpeg_2000):
    framed = np.zeros((1000, 900), np.uint16)
    framed[100:900, 80:820] = waves[:800, :740]
    data = as_jpeg_2000(framed, BitsStored=12)
    whole, part = read_radiograph(data).record, read_radiograph(data, enough=INPUT.enough("fast")).record
    assert part.halvings == 2
    np.testing.assert_allclose(part.crop, whole.crop, atol=12)
    assert part.digest != whole.digest


@pytest.mark.parametrize(
    "fields",
    [{"PixelPaddingValue": 60}, {"PixelRepresentation": 1}, {"PhotometricInterpretation": "PALETTE COLOR"}],
    ids=str,
)
def test_what_has_no_mean_is_read_whole(waves, as_jpeg_2000, fields):
    if "PhotometricInterpretation" in fields:
        table = np.arange(4096, dtype=np.uint16)[::-1].tobytes()
        for colour in ("Red", "Green", "Blue"):
            fields = fields | {
                f"{colour}PaletteColorLookupTableDescriptor": [4096, 0, 16],
                f"{colour}PaletteColorLookupTableData": table,
            }
    data = as_jpeg_2000(waves, BitsStored=12, **fields)
    whole, part = (read_radiograph(data, enough=enough) for enough in (None, INPUT.enough("fast")))
    assert part.record.halvings == 0
    np.testing.assert_array_equal(part.pixels, whole.pixels)


def test_reading_safely_keeps_twice_the_detail(waves, as_jpeg_2000):
    data = as_jpeg_2000(waves, BitsStored=12)
    found = [read_radiograph(data, enough=INPUT.enough(how)).record.halvings for how in ("whole", "safe", "fast")]
    assert found == [0, 1, 2]


def test_an_image_near_the_size_of_the_input_is_read_whole(waves, as_jpeg_2000):
    small = waves[:200, :150]
    assert read_radiograph(as_jpeg_2000(small, BitsStored=12), enough=INPUT.enough("fast")).record.halvings == 0


def test_a_turned_jpeg_is_read_whole(waves):
    file = BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray((waves // 16).astype(np.uint8)).save(file, "JPEG", exif=exif)
    part = read_radiograph(file.getvalue(), enough=INPUT.enough("fast"))
    assert (part.record.halvings, part.pixels.shape) == (0, waves.shape[::-1])


def test_decoders_serve_threads_side_by_side_and_one_that_died_while_it_waited_fails_no_file(waves, as_jpeg_2000):
    images = [np.roll(waves[:200, :150], 9 * shift) for shift in range(6)]
    files = [as_jpeg_2000(image, BitsStored=12, WindowCenter=2048, WindowWidth=4096) for image in images]
    expected = [read_radiograph(file).pixels for file in files]
    found = [None] * len(files)

    def read(place):
        found[place] = read_radiograph(files[place]).pixels

    for _ in range(2):
        threads = [threading.Thread(target=read, args=(place,)) for place in range(len(files))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    dead = codec_process._idle[-1]
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    np.testing.assert_array_equal(read_radiograph(files[0]).pixels, expected[0])
    assert dead not in codec_process._idle


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_does_not_share_decoders(waves, as_jpeg_2000):
    read_radiograph(as_jpeg_2000(waves[:64, :64], BitsStored=12))
    assert codec_process._idle
    child = os.fork()
    if not child:
        os._exit(len(codec_process._idle))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
