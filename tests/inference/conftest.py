"""Small radiographs on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


@pytest.fixture(scope="session")
def write_png() -> Callable[..., Path]:
    """Write a grey PNG of its own for each seed; folders are made."""

    def write(path: Path, seed: int = 0, shape: tuple[int, int] = (40, 50)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each seed has its own brightness: a tiny network sees the difference.
        pixels = np.random.default_rng(seed).integers(0, 40 + 43 * (seed % 5), shape)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """Write a small digital radiograph as DICOM; keywords set its elements."""

    def write(path: Path, seed: int = 0, **elements: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 4096, (40, 50)).astype(np.uint16)
        values = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
            "SOPInstanceUID": generate_uid(),
            "Modality": "DX",
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": 40,
            "Columns": 50,
            "SamplesPerPixel": 1,
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "PixelData": pixels.tobytes(),
        } | elements
        dataset = pydicom.Dataset()
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """A tiny model on disk."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")
