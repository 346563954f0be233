"""Real radiographs: three wrists where they lie beside the repository, and the CR files of pydicom-data."""

from pathlib import Path

import numpy as np
import pytest

from mskscreen.pixels import Preprocessing, read_radiograph

WRISTS = Path(__file__).parents[2] / "../shared/data"


def computed_radiography(name):
    data_store = pytest.importorskip("data_store")
    return read_radiograph(Path(data_store.__file__).parent / "data" / name)


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_jpeg_2000_of_computed_radiography_equals_the_uncompressed_file(name):
    """R files hold the lossless codestream and its source, I files the lossy codestream and what it decodes to."""
    for kind in ("R", "I"):
        plain, coded = (computed_radiography(f"{name}_{syntax}{kind}.dcm") for syntax in ("UNC", "J2K"))
        np.testing.assert_array_equal(coded.pixels, plain.pixels)
        assert coded.record.photometric == "MONOCHROME1"
        assert coded.record.inverted


def test_bone_is_bright_in_monochrome1_files():
    """RG3 is a tibia, RG1 a chest: shaft against air beside the leg, mediastinum against lung."""
    tibia = computed_radiography("RG3_J2KR.dcm").pixels
    assert tibia[600:900, 850:900].mean() > tibia[1200:1500, 1100:1200].mean() + 0.3
    chest = computed_radiography("RG1_J2KR.dcm").pixels
    assert chest[900:1200, 880:960].mean() > chest[600:900, 450:650].mean() + 0.1


@pytest.mark.skipif(not WRISTS.is_dir(), reason="the wrist radiographs are not beside this repository")
@pytest.mark.parametrize("path", sorted(WRISTS.glob("*.png")), ids=lambda path: path.stem)
def test_wrists_decode_bone_bright_and_use_the_range(path):
    radiograph = read_radiograph(path)
    values = Preprocessing(224, 224, fit="letterbox")(radiograph)
    assert radiograph.record.bits in (8, 16)
    assert values.max() > 0.9
    # Bone and soft tissue fill the upper half of the exposed values; air and collimator are dark.
    assert np.median(values) < 0.6
    assert 0.1 < (values > 0.5).mean() < 0.7
