"""A folder of DICOM files: studies, patients and regions from their headers, no labels."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from mskscreen.data.findings import Findings
from mskscreen.data.manifest import Manifest
from mskscreen.data.sources.tables import region
from mskscreen.data.tree import OutsideError, Tree

_TAGS = ["PatientID", "IssuerOfPatientID", "StudyInstanceUID", "BodyPartExamined", "InstanceNumber", "Rows"]


def index_dicom(root: Path, *, links: bool = False) -> tuple[Manifest, Findings]:
    """Every DICOM image below `root`, with or without a suffix, in the order of the paths.

    `patient` is a digest of Patient ID and its issuer, so that the manifest does not repeat the ID; who can guess
    an ID can still recognise it. Other files are ignored and counted.
    """
    findings = Findings()
    tree = Tree(root, links=links)
    rows = []
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            relative = (Path(place) / name).relative_to(root).as_posix()
            try:
                row = None if name.startswith(".") or name == "DICOMDIR" else _row(tree, relative)
            except OutsideError as error:
                findings.add(str(error), "folder", refused=True)
                continue
            if row:
                rows.append(row)
            else:
                findings.add("file without a DICOM image ignored", "folder")
    return Manifest.from_rows(root, rows, "dicom", links=links), findings


def _row(tree: Tree, relative: str) -> dict[str, Any] | None:
    import pydicom

    status = tree.stat(relative)
    if status is None:
        return None
    try:
        header = pydicom.dcmread(tree.root / relative, stop_before_pixels=True, specific_tags=list(_TAGS))
        if "Rows" not in header:
            return None
        number = header.get("InstanceNumber")
        return {
            "image": relative,
            "study": str(header.get("StudyInstanceUID") or "") or None,
            "patient": _patient(header.get("PatientID"), header.get("IssuerOfPatientID")),
            "joint": region(str(header.get("BodyPartExamined") or "")),
            "view": None if number is None else int(number),
            "bytes": status.st_size,
        }
    # pydicom raises many kinds of errors on files that are not what they claim.
    except Exception:
        return None


def _patient(number: object, issuer: object) -> str | None:
    if not number:
        return None
    return hashlib.sha256(f"{issuer or ''}\0{number}".encode()).hexdigest()[:16]
