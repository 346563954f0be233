"""PNG files hold what was put in, whatever the shape."""

import io

import numpy as np
import pytest
from PIL import Image

from mskscreen.phantom.png import png_bytes


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (300, 1), (37, 512)])
def test_a_reader_gets_back_what_was_written(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for stored in (image, image[::-1], image * np.uint8(0)):
        with Image.open(io.BytesIO(png_bytes(stored))) as read:
            assert read.mode == "L"
            read.load()
            assert np.array_equal(np.asarray(read), stored)
