"""DICOM phantoms, read back by our own door and by pydicom alone."""

import itertools
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from mskscreen.anatomy import JointType
from mskscreen.phantom.dicom_output import Identity, Stored, sample_stored, to_dicom, uid, write_dicom
from mskscreen.pixels import read_radiograph

WRIST = Identity(
    seed=2**61 + 5,
    patient=12,
    study=1,
    number=2,
    joint=JointType.WRIST,
    views=("PA oblique",),
    laterality="L",
    years=33.4,
    kilovolts=55.0,
    pixel=0.37,
)
EVERY_WAY = [
    Stored(*way)
    for way in itertools.product(("DX", "CR"), ("MONOCHROME1", "MONOCHROME2"), ("window", "sigmoid", "lut"))
]


@pytest.fixture(scope="module")
def display() -> np.ndarray:
    ramp = np.linspace(0, 1, 96, dtype=np.float32)
    return np.outer(ramp, np.ones(64, np.float32)) * np.linspace(1, 0.5, 64, dtype=np.float32)


@pytest.mark.parametrize("stored", EVERY_WAY, ids=str)
def test_a_reader_sees_the_display_again(tmp_path, display, stored):
    write_dicom(tmp_path / "image.dcm", display, WRIST, stored)
    decoded = read_radiograph(tmp_path / "image.dcm").pixels
    # A sigmoid never reaches its ends, and a steep one has few levels in between.
    tolerance = 4e-3 if stored.voi == "sigmoid" else 6e-4
    assert np.abs(decoded - display).max() < tolerance


@pytest.mark.parametrize("voi", ["window", "sigmoid", "lut"])
def test_both_photometric_interpretations_are_one_picture(tmp_path, display, voi):
    pictures = []
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = tmp_path / f"{photometric}.dcm"
        write_dicom(path, display, WRIST, Stored("CR", photometric, voi))
        pictures.append(read_radiograph(path).pixels)
    assert np.abs(pictures[0] - pictures[1]).max() < 1e-5


@pytest.mark.parametrize("stored", EVERY_WAY, ids=str)
def test_objects_are_complete_and_twelve_bit(tmp_path, display, stored):
    write_dicom(tmp_path / "image.dcm", display, WRIST, stored)
    dataset = pydicom.dcmread(tmp_path / "image.dcm")
    assert (
        dataset.SOPClassUID
        == {
            "DX": "1.2.840.10008.5.1.4.1.1.1.1",
            "CR": "1.2.840.10008.5.1.4.1.1.1",
        }[stored.modality]
    )
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        assert UID(dataset[name].value).is_valid
        assert dataset[name].value.startswith("2.25.")
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
    assert dataset.pixel_array.max() < 4096
    assert dataset.BodyPartExamined == "WRIST"
    assert dataset.ViewPosition == "PA OBLIQUE"
    assert dataset.ImageLaterality == "L"
    # PS3.3 C.7.3.1: of type 2C, for objects without the laterality of the image.
    assert "Laterality" not in dataset
    assert float(dataset.ImagerPixelSpacing[0]) == pytest.approx(0.37)
    assert dataset.PatientAge == "033Y"
    # PS3.3 C.8.11: what Digital X-Ray requires beyond Computed Radiography.
    required = (
        "PresentationIntentType",
        "AnatomicRegionSequence",
        "PixelIntensityRelationship",
        "PixelIntensityRelationshipSign",
        "PresentationLUTShape",
        "PatientOrientation",
        "RescaleSlope",
        "DetectorType",
        "AcquisitionContextSequence",
        "BurnedInAnnotation",
        "LossyImageCompression",
    )
    assert stored.modality == "CR" or all(name in dataset for name in required)
    assert ("VOILUTSequence" in dataset) == (stored.voi == "lut") == ("WindowCenter" not in dataset)


def test_the_same_phantom_gives_the_same_bytes_and_another_view_another_instance(tmp_path, display):
    for name in ("one", "two"):
        write_dicom(tmp_path / name, display, WRIST, Stored())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    first, second = to_dicom(display, WRIST, Stored()), to_dicom(display, replace(WRIST, number=3), Stored())
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert uid("a", 1) != uid("a", 2)


def test_several_exposures_on_one_image_have_all_views_and_no_single_spacing_or_voltage(tmp_path, display):
    shared = replace(WRIST, views=("PA", "lateral"), kilovolts=None, pixel=None)
    write_dicom(tmp_path / "image.dcm", display, shared, Stored())
    dataset = pydicom.dcmread(tmp_path / "image.dcm")
    assert dataset.ViewPosition == "PA LATERAL"
    assert "PA + lateral" in dataset.ImageComments
    assert not {"PixelSpacing", "ImagerPixelSpacing", "KVP"} & {element.keyword for element in dataset}
    assert read_radiograph(tmp_path / "image.dcm").pixels.shape == display.shape


def test_the_ways_to_store_are_all_drawn():
    drawn = [sample_stored(np.random.default_rng(seed)) for seed in range(200)]
    assert {(way.modality, way.photometric, way.voi) for way in drawn} == {
        (way.modality, way.photometric, way.voi) for way in EVERY_WAY
    }
    assert all(0 <= way.low < way.high <= 4095 for way in drawn)
