"""Phantoms as 12-bit DICOM objects: Digital X-Ray (for presentation) and Computed Radiography.

Modules follow DICOM PS3.3 A.2 (CR) and A.26 (DX). Every identifier is synthetic and derived from the seed, so the
same phantom always gives the same bytes. Patient Orientation is nominal: limbs lie on a plate at any angle.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from mskscreen.anatomy import JointType

_LEVELS = 4096
_IMPLEMENTATION = UID("2.25.199218765411337842614038253374416290871")


@dataclass(frozen=True)
class Stored:
    """How the displayed image is laid down in stored values.

    `modality` is `DX` or `CR`, `photometric` `MONOCHROME1` or `MONOCHROME2`; `voi` is `window`, `sigmoid` or
    `lut`, applied by a reader to the values between `low` and `high`.
    """

    modality: str = "DX"
    photometric: str = "MONOCHROME2"
    voi: str = "window"
    low: int = 300
    high: int = 3500


@dataclass(frozen=True)
class Identity:
    """What a DICOM object says of one phantom; `pixel` is its spacing, at object and detector alike, in mm.

    Several exposures on one image have several `views`, and neither one tube voltage nor one spacing: None.
    """

    seed: int
    patient: int
    study: int
    number: int
    joint: JointType
    views: tuple[str, ...]
    laterality: str
    years: float
    kilovolts: float | None
    pixel: float | None


def sample_stored(rng: np.random.Generator) -> Stored:
    """DX and CR alike often, one in four MONOCHROME1, the three ways to say how to display."""
    modality = str(rng.choice(("DX", "CR")))
    photometric = "MONOCHROME1" if rng.random() < 0.25 else "MONOCHROME2"
    voi = str(rng.choice(("window", "sigmoid", "lut"), p=(0.6, 0.1, 0.3)))
    return Stored(modality, photometric, voi, int(rng.integers(50, 900)), int(rng.integers(2400, 4000)))


def uid(*parts: object) -> str:
    """A UID of the root 2.25 (DICOM PS3.5 B.2) from a name-based UUID, the same for the same parts."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, 'mskscreen/phantom/' + '/'.join(map(str, parts))).int}"


def to_dicom(display: np.ndarray, identity: Identity, stored: Stored) -> Dataset:
    """A complete DICOM object for a displayed image, float (rows, columns) in [0, 1], bone bright.

    A reader that applies the VOI transformation and the photometric interpretation gets `display` back to
    within one stored level.
    """
    dataset = Dataset()
    _patient_and_study(dataset, identity, stored)
    _series_and_equipment(dataset, identity, stored)
    if stored.modality == "DX":
        _digital_x_ray(dataset, identity)
    else:
        dataset.CassetteOrientation = "PORTRAIT" if display.shape[0] >= display.shape[1] else "LANDSCAPE"
    curve = _display_curve(stored)
    values = np.interp(display, curve, np.arange(_LEVELS)).round().astype(np.uint16)
    if stored.photometric == "MONOCHROME1":
        values = np.uint16(_LEVELS - 1) - values
    _pixels(dataset, values, stored)
    _voi(dataset, stored, curve)
    return dataset


def write_dicom(path: Path, display: np.ndarray, identity: Identity, stored: Stored) -> None:
    """Write the object of `to_dicom` as a DICOM file, Explicit VR Little Endian."""
    dataset = to_dicom(display, identity, stored)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "MSKSCREEN"
    dataset.file_meta = meta
    # pydicom would hide from the caller why a write failed.
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    path.write_bytes(file.getvalue())


def _display_curve(stored: Stored) -> np.ndarray:
    """Displayed value of every stored level in the MONOCHROME2 sense: float64 (4096,), not falling."""
    level = np.arange(_LEVELS)
    if stored.voi == "sigmoid":
        centre, width = _window(stored)
        return 1 / (1 + np.exp(-4 * (level - centre) / width))
    share = np.clip((level - stored.low) / (stored.high - stored.low), 0, 1)
    if stored.voi == "lut":
        return share * share * (3 - 2 * share) * 0.7 + 0.3 * share
    return share


def _window(stored: Stored) -> tuple[float, float]:
    """Centre and width: LINEAR maps `low` to 0 and `high` to 1 (PS3.3 C.11.2.1.2.1); SIGMOID is steeper within."""
    if stored.voi == "sigmoid":
        return (stored.low + stored.high) / 2, (stored.high - stored.low) / 3.2
    return (stored.low + stored.high + 1) / 2, stored.high - stored.low + 1


def _voi(dataset: Dataset, stored: Stored, curve: np.ndarray) -> None:
    inverted = stored.photometric == "MONOCHROME1"
    if stored.voi == "lut":
        # The table turns stored values into display values before MONOCHROME1 inverts them.
        levels = (curve * 65535).round().astype("<u2")
        table = 65535 - levels[::-1] if inverted else levels
        entry = Dataset()
        entry.add_new("LUTDescriptor", "US", [_LEVELS, 0, 16])
        entry.LUTExplanation = "PHANTOM"
        entry.add_new("LUTData", "OW", table.astype("<u2").tobytes())
        dataset.VOILUTSequence = Sequence([entry])
        return
    centre, width = _window(stored)
    if inverted:
        centre = _LEVELS - 1 - centre + (stored.voi == "window")
    dataset.WindowCenter, dataset.WindowWidth = f"{centre:.6g}", f"{width:.6g}"
    dataset.VOILUTFunction = "LINEAR" if stored.voi == "window" else "SIGMOID"


def _patient_and_study(dataset: Dataset, identity: Identity, stored: Stored) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"PHANTOM^{identity.patient:05d}"
    dataset.PatientID = f"PHANTOM{identity.patient:05d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.PatientAge = f"{int(identity.years):03d}Y"
    dataset.StudyInstanceUID = uid(identity.seed, "study")
    dataset.StudyID = str(identity.study)
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20000101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.StudyDescription = f"SYNTHETIC {identity.joint.codes.body_part}"
    dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = uid(identity.seed, "series", stored.modality)
    dataset.SOPInstanceUID = uid(identity.seed, "image", identity.number, stored.modality)


def _series_and_equipment(dataset: Dataset, identity: Identity, stored: Stored) -> None:
    digital = stored.modality == "DX"
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    dataset.Modality = stored.modality
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = identity.number
    dataset.BodyPartExamined = identity.joint.codes.body_part
    # CS holds 16 characters of upper case, digits, space and underscore.
    position = re.sub(r"[^A-Z0-9_ ]", " ", " ".join(identity.views).upper())
    dataset.ViewPosition = position[:16].strip()
    # Beside it the Laterality of the series may not stand (PS3.3 C.7.3.1, type 2C).
    dataset.ImageLaterality = identity.laterality
    dataset.PatientOrientation = ["L", "F"]
    if identity.kilovolts is not None:
        dataset.KVP = f"{identity.kilovolts:.4g}"
    dataset.Manufacturer = "mskscreen"
    dataset.ManufacturerModelName = "phantom"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "phantom"
    if identity.pixel is not None:
        dataset.ImagerPixelSpacing = dataset.PixelSpacing = [f"{identity.pixel:.6g}"] * 2
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"] if not digital else ["ORIGINAL", "PRIMARY", ""]
    dataset.ImageComments = "Synthetic phantom, not a patient"
    if len(identity.views) > 1:
        dataset.ImageComments += f"; exposures: {' + '.join(identity.views)}"


def _digital_x_ray(dataset: Dataset, identity: Identity) -> None:
    codes = identity.joint.codes
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = codes.snomed, "SCT", codes.meaning
    dataset.AnatomicRegionSequence = Sequence([region])
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.DetectorType = "SCINTILLATOR"
    dataset.AcquisitionContextSequence = Sequence()
    dataset.PixelIntensityRelationship = "LOG"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.LossyImageCompression = "00"


def _pixels(dataset: Dataset, values: np.ndarray, stored: Stored) -> None:
    inverted = stored.photometric == "MONOCHROME1"
    if stored.modality == "DX":
        dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
        # Bone bright means more stored value for less beam, except in MONOCHROME1.
        dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = stored.photometric
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = values.astype("<u2").tobytes()
