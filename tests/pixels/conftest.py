"""Radiographs made for the tests: DICOM data sets with any header, and their bytes."""

from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


@pytest.fixture(scope="session")
def ramp():
    """A smooth 12-bit image (40, 56); the committed HTJ2K file holds the same."""
    y, x = np.mgrid[:40, :56]
    return ((5 * x * x + 3 * y * y + 2 * x * y) // 4 % 4096).astype(np.uint16)


@pytest.fixture(scope="session")
def make_dicom():
    """`make(array, **fields)`: a computed radiography image of `array`; None removes a field."""

    def make(array, **fields):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        dataset.PatientName = "Secret^Name"
        dataset.PatientID = "SECRET-ID"
        dataset.Modality = "CR"
        dataset.SamplesPerPixel = 3 if array.ndim == 3 else 1
        dataset.PhotometricInterpretation = "RGB" if array.ndim == 3 else "MONOCHROME2"
        dataset.Rows, dataset.Columns = array.shape[:2]
        dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
        dataset.HighBit = (fields.get("BitsStored") or dataset.BitsStored) - 1
        dataset.PixelRepresentation = int(array.dtype.kind == "i")
        if array.ndim == 3:
            dataset.PlanarConfiguration = 0
        pixels = array.tobytes()
        dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
        dataset["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
        for keyword, value in fields.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        return dataset

    return make


@pytest.fixture(scope="session")
def file_bytes():
    """`file_bytes(dataset)`: the DICOM file of a data set."""

    def write(dataset):
        file = BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()

    return write
