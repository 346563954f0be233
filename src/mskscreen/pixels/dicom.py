"""DICOM files and data sets: header -> one frame of stored values -> the grayscale pipeline.

Only the elements that decoding and grouping need are parsed; a patient's name is never read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from mskscreen.errors import DecodeError
from mskscreen.pixels.dicom_frame import SYNTAXES, decode_frame
from mskscreen.pixels.dicom_header import MONOCHROME, PALETTE, FrameHeader, Header
from mskscreen.pixels.digest import sha256_beside
from mskscreen.pixels.grayscale import Pipeline, Shown, show
from mskscreen.pixels.limits import Limits
from mskscreen.pixels.radiograph import (
    FLAG_BURNED_IN,
    FLAG_FOR_PROCESSING,
    FLAG_NOT_RADIOGRAPHY,
    FULL_RANGE,
    DecodeRecord,
    Radiograph,
    Spacing,
    constant_flag,
)
from mskscreen.pixels.raster import luminance, unit_table
from mskscreen.pixels.reduction import Enough
from mskscreen.pixels.shutter import KEYWORDS as SHUTTER
from mskscreen.pixels.shutter import hidden_by_shutter
from mskscreen.pixels.structure import CountingReader, check_structure, read_meta

_IDENTIFIERS = {
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "sop_instance_uid": "SOPInstanceUID",
    "sop_class_uid": "SOPClassUID",
    "modality": "Modality",
    "body_part_examined": "BodyPartExamined",
    "view_position": "ViewPosition",
    "laterality": "ImageLaterality",
    "burned_in_annotation": "BurnedInAnnotation",
    "patient_id": "PatientID",
}
_PALETTES = [
    f"{c}PaletteColorLookupTable{part}" for c in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
]
_READ = [
    *_IDENTIFIERS.values(),
    *("PixelSpacing", "ImagerPixelSpacing", "Laterality", "PresentationIntentType"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "PixelData"),
    *(*_PALETTES, *SHUTTER),
]
# Digital X-ray, mammography and intra-oral images for processing (DICOM PS3.4 B.5).
_FOR_PROCESSING = {f"1.2.840.10008.5.1.4.1.1.1.{kind}.1" for kind in (1, 2, 3)}
# Projection radiography, and what scanners and exporters write.
_MODALITIES = {"", "CR", "DX", "DR", "RF", "XA", "RG", "MG", "IO", "PX", "OT", "SC"}


def looks_like_dicom(data: bytes) -> bool:
    """Whether bytes begin like a DICOM file, with or without the preamble of PS3.10."""
    if data[128:132] == b"DICM":
        return True
    vr = data[4:6].isalpha() and data[4:6].isupper()
    implicit = len(data) > 8 and int.from_bytes(data[4:8], "little") <= len(data)
    return (data[:2] in (b"\2\0", b"\10\0") and (vr or implicit)) or (data[:2] == b"\0\10" and vr)


def decode_dicom(data: bytes, name: str, limits: Limits, enough: Enough = None) -> Radiograph:
    """Decode the bytes of a DICOM file; errors call it `name`, `enough` is that of `read_radiograph`.

    Raises DecodeError and LimitError; a corrupt file may raise what pydicom and the decoders raise.
    """
    digest = sha256_beside(data)
    start, syntax, encoding = read_meta(data, name)
    if syntax == DeflatedExplicitVRLittleEndian:
        data = _inflate(data[start:], name, limits)
        start, syntax, encoding = read_meta(data, name)
    check_structure(data, start, encoding, name, limits)
    dataset = dcmread(CountingReader(data, name, limits), force=True, specific_tags=cast("list", _READ))
    return _decode(dataset, digest, name, limits, enough)


def decode_dataset(dataset: object, name: str, limits: Limits, enough: Enough = None) -> Radiograph:
    """Decode a pydicom data set, which is not changed.

    Raises as `decode_dicom` does, and DecodeError for any other kind of object.
    """
    if not isinstance(dataset, Dataset):
        raise DecodeError(
            f"{name}: a {type(dataset).__name__} is no image; pass a path, bytes, an array or a pydicom Dataset"
        )
    digest = sha256_beside(dataset.get("PixelData") or b"")
    return _decode(dataset, digest, name, limits, enough)


def has_burned_in(dataset: Dataset) -> bool:
    """Whether a data set declares text in its pixels (0028,0301), which may name the patient.

    A value that cannot be read counts as such.
    """
    try:
        return "YES" in str(dataset.get("BurnedInAnnotation")).upper()
    except Exception:  # pydicom's converters fail in many ways on a broken value
        return True


def _inflate(body: bytes, name: str, limits: Limits) -> bytes:
    """A deflated data set as the bytes of an explicit little endian file (DICOM PS3.5 A.5)."""
    if not limits.deflated:
        raise DecodeError(
            f"{name}: the deflated transfer syntax is refused; store it uncompressed (dcmconv +te of DCMTK), or "
            "read it in Python with Limits(deflated=True)"
        )
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, limits.file_bytes + 1)
    limits.check_file(name, len(inflated))
    syntax = str(ExplicitVRLittleEndian).encode() + b"\0"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return bytes(128) + b"DICM" + meta + inflated


def _decode(dataset: Dataset, digest: Callable[[], str], name: str, limits: Limits, enough: Enough) -> Radiograph:
    header = Header(dataset, name)
    try:
        return _decode_image(dataset, header, digest, name, limits, enough)
    except DecodeError as error:
        error.dicom = _identifiers(header)
        raise
    except MemoryError:
        raise
    except Exception as error:
        failure = DecodeError.corrupt(name, error)
        failure.dicom = _identifiers(header)
        raise failure from error


def _decode_image(
    dataset: Dataset, header: Header, digest: Callable[[], str], name: str, limits: Limits, enough: Enough
) -> Radiograph:
    if not dataset.get("PixelData"):
        raise DecodeError(f"{name}: this DICOM object holds no pixel data; name an image")
    syntax = _syntax(dataset)
    if syntax not in SYNTAXES:
        raise DecodeError(f"{name}: transfer syntax {syntax.name[:64]} is not read; store it uncompressed")
    frame = header.frame()
    if frame.frames > 1:
        raise DecodeError(f"{name}: holds {frame.frames} frames; split it into images of one frame")
    limits.check_image(name, frame.rows, frame.columns, samples=frame.samples, bits=frame.bits_allocated)
    element = dataset.get_item("PixelData")
    gray = frame.photometric in MONOCHROME
    pipeline = header.pipeline(frame) if gray else Pipeline(frame.bits_stored, frame.signed)
    hidden = hidden_by_shutter(header, frame) if gray else None
    if not gray or pipeline.padding is not None or hidden is not None:
        enough = None  # neither the entries of a palette nor padding, or what is hidden, and anatomy have a mean
    data = bytes(element.value)
    codes, halvings = decode_frame(data, str(element.VR or "OW"), syntax, frame, name, enough)
    shown = show(codes, pipeline, hidden) if gray else _show_colour(codes, pipeline, frame, header)
    if shown.warning:
        header.warnings.append(shown.warning)
    flags = [FLAG_FOR_PROCESSING] if _is_for_processing(header) else []
    if (modality := header.text("Modality")) not in _MODALITIES:
        header.warnings.append(f"Modality {modality} is not projection radiography")
        flags.append(FLAG_NOT_RADIOGRAPHY)
    if has_burned_in(dataset):
        header.warnings.append("BurnedInAnnotation (0028,0301) is YES: the pixels may show who the patient is")
        flags.append(FLAG_BURNED_IN)
    record = DecodeRecord(
        format="DICOM",
        sha256=digest(),
        bits=frame.bits_stored,
        rows=frame.rows,
        columns=frame.columns,
        photometric=frame.photometric,
        transfer_syntax=syntax.name,
        modality_transform=_modality(pipeline),
        window=shown.window,
        inverted=pipeline.inverted,
        padding=pipeline.padding,
        padded=shown.padded,
        spacing=_spacing_in_words(header),
        crop=_whole(shown.crop, frame, halvings),
        halvings=halvings,
        warnings=tuple(dict.fromkeys(header.warnings)),
        flags=(*flags, *constant_flag(shown.values, shown.table)),
        dicom=_identifiers(header),
    )
    if not halvings:
        return Radiograph(shown.values, record, table=shown.table, spacing=_spacing(header))
    # Coefficient n of a wavelet level lies on pixel n * 2**halvings (T.800 B-15), not in the middle of a block.
    step = 2.0**halvings
    right, bottom = ((size - 0.5) / step + 0.5 for size in (frame.columns, frame.rows))
    first = 0.5 - 0.5 / step
    values = np.pad(shown.values, (0, 1), mode="edge")
    return Radiograph(values, record, (first, first, right, bottom), shown.table)


def _whole(
    crop: tuple[int, int, int, int] | None, frame: FrameHeader, halvings: int
) -> tuple[int, int, int, int] | None:
    """An area of the image that was decoded, in pixels of the source."""
    if crop is None:
        return None
    top, left, bottom, right = (value << halvings for value in crop)
    return top, left, min(bottom, frame.rows), min(right, frame.columns)


def _syntax(dataset: Dataset) -> UID:
    meta = getattr(dataset, "file_meta", None)
    if meta is not None and meta.get("TransferSyntaxUID"):
        return UID(meta.TransferSyntaxUID)
    return ExplicitVRBigEndian if dataset.original_encoding[1] is False else ExplicitVRLittleEndian


def _show_colour(codes: npt.NDArray, pipeline: Pipeline, frame: FrameHeader, header: Header) -> Shown:
    """Luminance of a colour image at 8 bits; its values are made for display, so no window applies."""
    if frame.photometric == PALETTE:
        stored = pipeline.stored(codes)
        rgb = np.stack([_bytes(lut(stored), lut.top) for lut in header.palette(frame)], axis=-1)
    elif frame.bits_stored >= 8:
        rgb = (codes >> (frame.bits_stored - 8)).astype(np.uint8)
    else:
        rgb = _bytes(codes, 2**frame.bits_stored - 1)
    gray = np.asarray(luminance(Image.fromarray(rgb), header.warnings))
    return Shown(gray, unit_table(8, 255), FULL_RANGE, None, 0, None)


def _bytes(values: npt.NDArray, top: float) -> npt.NDArray[np.uint8]:
    """Values from 0 to `top` as bytes."""
    return (values * (255 / top) + 0.5).astype(np.uint8)


def _modality(pipeline: Pipeline) -> str:
    if pipeline.modality_lut is not None:
        return f"Modality LUT of {len(pipeline.modality_lut.entries)} entries"
    if (pipeline.slope, pipeline.intercept) == (1, 0):
        return "none"
    return f"rescale slope {pipeline.slope:g} intercept {pipeline.intercept:g}"


def _spacing(header: Header) -> Spacing | None:
    """The spacing of columns; calibrated values differ from those at the detector (DICOM PS3.3 10.7.1.3)."""
    calibrated, detector = (header.number(keyword, 1) for keyword in ("PixelSpacing", "ImagerPixelSpacing"))
    mm = calibrated or detector
    return Spacing(mm, mm == detector) if mm is not None and mm > 0 else None


def _spacing_in_words(header: Header) -> str | None:
    """Both spacings of the file, rows before columns, and the one that the ruler takes; None without any."""
    told = []
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        rows, columns = (header.number(keyword, index) for index in (0, 1))
        if rows is not None and columns is not None:
            told.append(f"{keyword} {rows:g} x {columns:g} mm")
        elif header.text(keyword):
            told.append(f"{keyword} is not usable")
    if not told:
        return None
    if (found := _spacing(header)) is None:
        return "; ".join((*told, "no ruler"))
    how = "at the detector" if found.at_detector else "calibrated"
    return "; ".join((*told, f"ruler of {found.mm:g} mm, {how}"))


def _is_for_processing(header: Header) -> bool:
    return (
        header.text("PresentationIntentType").upper() == "FOR PROCESSING"
        or header.text("SOPClassUID") in _FOR_PROCESSING
    )


def _identifiers(header: Header) -> dict[str, str]:
    found = {key: header.text(keyword) for key, keyword in _IDENTIFIERS.items()}
    found["laterality"] = found["laterality"] or header.text("Laterality")
    return {key: value for key, value in found.items() if value}
