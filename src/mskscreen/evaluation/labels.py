"""What is true of the images: a manifest in Parquet, a CSV, the CSV of MURA, or the folder names of MURA."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mskscreen.data.manifest import own_studies
from mskscreen.errors import DataError, short
from mskscreen.evaluation.keys import joint_index
from mskscreen.evaluation.table import Table
from mskscreen.mura_path import mura_path

_IMAGE_NAMES = ("image", "file", "path")
_UNUSED = {"bytes", "sha256"}
_KNOWN = {*_IMAGE_NAMES, *_UNUSED, "study", "patient", "joint", "label"}
_NEVER = {*_IMAGE_NAMES, "study", "patient", "joint"}
_TRUE = {"1", "1.0", "true", "positive", "abnormal"}
_FALSE = {"0", "0.0", "false", "negative", "normal"}


@dataclass(frozen=True)
class Labels:
    """Truth by row: an image, or a whole study where `image` is None.

    `label` (n,) is 1 abnormal, 0 normal, NaN unknown; `joint` (n,) is -1 unknown. `columns` holds every other
    column as text, for subgroups.
    """

    image: Sequence[str | None]
    study: Sequence[str]
    patient: Sequence[str | None]
    label: np.ndarray
    joint: np.ndarray
    columns: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    name: str = "labels"

    def __len__(self) -> int:
        return len(self.study)


def read_labels(path: Path, *, label_column: str = "label") -> Labels:
    """Read a manifest (Parquet) or a CSV with the columns `label` and `study` or `image` (also `file`, `path`).

    A CSV without a header is MURA's `..._labeled_studies.csv`. Columns `patient` and `joint` are used where
    present, every other column can name subgroups. Raises DataError that names the file, the line and the field.
    """
    columns = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path, label_column)
    if label_column not in columns:
        likely = [name for name, values in columns.items() if name not in _NEVER and _looks_like_labels(values)]
        which = " or ".join(f"--label-column {name}" for name in likely) or "that of labels with --label-column"
        raise DataError(f"{path}: no column '{label_column}'; name {which}; it has {', '.join(columns)}")
    if not columns[label_column]:
        raise DataError(f"{path}: it holds no row; add the labels")
    image_name = next((name for name in _IMAGE_NAMES if name in columns), None)
    images = columns[image_name] if image_name else [None] * len(columns[label_column])
    studies = [study or image for study, image in zip(columns.get("study") or images, images, strict=True)]
    missing = next((i for i, study in enumerate(studies) if not study), None)
    if missing is not None:
        raise DataError(f"{path}: row {missing + 1} has neither a study nor an image; add the column 'study'")
    labels = np.array(
        [parse_label(text, f"{path}: row {i + 1}") for i, text in enumerate(columns[label_column])], np.float64
    )
    joints = columns.get("joint") or [None] * len(labels)
    patients = columns.get("patient") or [None] * len(labels)
    return Labels(
        image=images,
        study=[str(study) for study in own_studies(studies, patients)],
        patient=patients,
        label=labels,
        joint=np.array([_joint(j, s) for j, s in zip(joints, studies, strict=True)], np.intp),
        columns={k: v for k, v in columns.items() if k not in _KNOWN | {label_column}},
        name=path.name,
    )


def _looks_like_labels(values: Sequence[str | None]) -> bool:
    """Whether a column holds nothing but words for normal and abnormal."""
    words = {value.strip().lower() for value in values if value}
    return bool(words) and words <= _TRUE | _FALSE


def labels_from_paths(table: Table) -> Labels:
    """Labels that MURA writes into the folder names of the files of `table`.

    Raises DataError where no file name holds one.
    """
    files, patients, labels, joints = [], [], [], []
    shared: dict[str, str] = {}
    for file in table.file:
        path = mura_path(file)
        if path and path.label is not None:
            files.append(file)
            patients.append(shared.setdefault(path.patient, path.patient))
            labels.append(path.label)
            joints.append(joint_index(path.joint or ""))
    if not files:
        raise DataError(
            f"{table.name}: its file names hold no MURA labels; pass --labels with a manifest or a CSV"
        )
    return Labels(
        image=files,
        study=files,
        patient=patients,
        label=np.array(labels, np.float64),
        joint=np.array(joints, np.intp),
        name="the folder names of MURA",
    )


def paths_tell(table: Table) -> bool:
    """Whether `labels_from_paths` finds any."""
    return any(path and path.label is not None for path in map(mura_path, table.file))


def unlabelled(table: Table) -> Labels:
    """Every image of `table` as normal: for the agreement of calls, which needs no truth."""
    return Labels(
        image=table.file,
        study=table.study,
        patient=table.patient,
        label=np.zeros(len(table)),
        joint=np.array([_joint(None, file) for file in table.file], np.intp),
        name="no labels",
    )


def _joint(name: str | None, path: str | None) -> int:
    if name:
        return joint_index(name)
    found = mura_path(path or "")
    return joint_index(found.joint) if found and found.joint else -1


def parse_label(text: str | None, where: str) -> float:
    """1 abnormal, 0 normal, NaN for an empty text; anything else raises DataError that begins with `where`."""
    lowered = (text or "").strip().lower()
    if lowered in ("", "nan", "none", "null"):
        return float("nan")
    if lowered not in _TRUE | _FALSE:
        raise DataError(f"{where}: label '{text}' is neither 0 nor 1; correct it or leave it empty")
    return float(lowered in _TRUE)


def _read_csv(path: Path, label_column: str) -> dict[str, list[str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8 ({error}); save it again as such") from error
    if not rows:
        raise DataError(f"{path}: the file is empty; it needs the columns study and label")
    header = [name.strip() for name in rows[0]]
    if twice := next((name for k, name in enumerate(header) if name and name in header[:k]), None):
        raise DataError(f"{path}: two columns are named '{short(twice)}'; rename one of them")
    if label_column not in header and len(header) == 2 and mura_path(header[0]):
        header = ["study", label_column]
    else:
        rows = rows[1:]
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if wrong is not None:
        raise DataError(
            f"{path}: row {wrong + 1} has {len(rows[wrong])} fields, not {len(header)}; correct the file"
        )
    return {name: [row[k] or None for row in rows] for k, name in enumerate(header)}


def _read_parquet(path: Path) -> dict[str, list[str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({error}); make the manifest again") from error
    return {
        name: [None if value is None else str(value) for value in table[name].to_pylist()]
        for name in table.column_names
        if name not in _UNUSED
    }
