"""What reading many images asks of the system, and the digest that is taken beside."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys

import pytest

from mskscreen.pixels.digest import sha256_beside

READ_TWENTY = """
import io, resource, sys
import numpy as np
from PIL import Image
from mskscreen.pixels import Preprocessing, read_radiograph
from mskscreen.pixels.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
preprocessing = Preprocessing.parse("decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit")
file = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 65536, (512, 512), np.uint16)).save(file, "PNG")
def read():
    for _ in range(20):
        preprocessing(read_radiograph(file.getvalue()))
read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
read()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_of_one_image_serves_the_next():
    faults = {
        way: int(subprocess.run([sys.executable, "-c", READ_TWENTY, way], capture_output=True, check=True).stdout)
        for way in ("keep", "return")
    }
    assert faults["keep"] * 10 < faults["return"]


@pytest.mark.parametrize("size", [0, 1000, (1 << 20) - 1, 1 << 20, 5 << 20])
def test_the_digest_beside_is_the_digest(size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    finish = sha256_beside(data)
    assert finish() == finish() == hashlib.sha256(data).hexdigest()
