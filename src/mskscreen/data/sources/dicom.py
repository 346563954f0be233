"""A folder of DICOM files: studies, patients and regions from their headers, no labels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mskscreen.data.findings import Findings
from mskscreen.data.manifest import Manifest
from mskscreen.data.sources.tables import region
from mskscreen.data.tree import Tree
from mskscreen.errors import DataError, LimitError
from mskscreen.pixels import Limits
from mskscreen.pixels.structure import CountingReader, check_structure, read_meta

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS = ["PatientID", "IssuerOfPatientID", "StudyInstanceUID", "BodyPartExamined", "InstanceNumber", "Rows"]
_DEFLATED = "1.2.840.10008.1.2.1.99"
# No header of a radiograph comes near this many bytes.
_HEADER = 1 << 20


def index_dicom(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """Every DICOM image below `root`, with or without a suffix, in the order of the paths.

    `patient` is a digest of Patient ID and its issuer, so that the manifest does not repeat the ID; who can guess
    an ID can still recognise it. Other files are ignored and counted.
    """
    findings = Findings()
    tree = Tree(root, links=links)
    rows = []
    for relative in tree.walk():
        name = relative.rpartition("/")[2]
        try:
            row = None if name.startswith(".") or name == "DICOMDIR" else _row(tree, relative)
        except DataError as error:
            findings.add(str(error), "folder", refused=True)
            continue
        if row:
            rows.append(row)
        else:
            findings.add("file without a DICOM image ignored", "folder")
    return Manifest.from_rows(root, rows, "dicom", links=links), findings


def _row(tree: Tree, relative: str) -> dict[str, Any] | None:
    """What the header says, or None where the file holds no DICOM image.

    Raises DataError where the path leaves the root or the header asks for too much.
    """
    import pydicom

    from mskscreen.pixels.dicom import looks_like_dicom

    status = tree.stat(relative)
    if status is None:
        return None
    try:
        with (tree.root / relative).open("rb") as stream:
            head = stream.read(_HEADER)
    except OSError as error:
        raise DataError(f"file cannot be read ({error.strerror})") from error
    try:
        if not looks_like_dicom(head):
            return None
        start, syntax, encoding = read_meta(head, "the file")
        if syntax == _DEFLATED:
            raise DataError("the deflated transfer syntax is refused; store the file otherwise")
        check_structure(head, start, encoding, "the file", Limits())
        reader = CountingReader(head, "the file", Limits())
        header = pydicom.dcmread(reader, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
        if "Rows" not in header:
            return None
        return {
            "image": relative,
            "study": str(header.get("StudyInstanceUID") or "") or None,
            "patient": _patient(header.get("PatientID"), header.get("IssuerOfPatientID")),
            "joint": region(str(header.get("BodyPartExamined") or "")),
            "view": _view(header),
            "bytes": status.st_size,
        }
    except LimitError as error:
        raise DataError(str(error)) from error
    except DataError:
        raise
    # pydicom raises many kinds of errors on files that are not what they claim.
    except Exception:
        return None


def _view(header: Dataset) -> int | None:
    """The Instance Number (PS3.5 6.2, IS: a whole number of 32 bits), or None where it is no such number."""
    try:
        number = int(header["InstanceNumber"].value)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return number if -(2**31) <= number < 2**31 else None


def _patient(number: object, issuer: object) -> str | None:
    if not number:
        return None
    return hashlib.sha256(f"{issuer or ''}\0{number}".encode()).hexdigest()[:16]
