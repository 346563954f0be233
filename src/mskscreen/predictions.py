"""The predictions table: one row per image, and the one function that derives study rows from it.

`predict` writes this table; evaluation, comparison, calibration, reports and DICOM objects read it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.contract import ModelContract
from mskscreen.errors import DataError

FLAG_ERROR = "error"
FLAG_LOW_CONFIDENCE = "low-confidence-joint"
FLAG_CONFLICT = "conflict"
FLAG_FOR_PROCESSING = "for-processing"
FLAG_NOVEL = "not-like-training-data"
FORMATS = ("json", "jsonl", "csv", "parquet")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    `pred1` (2,) and `pred2` (7,) are the raw scores in the release's order; `p_abnormal` and `p_joint` (7,)
    are calibrated probabilities; `abnormal` is the decision at the operating point in force. They are None,
    and `error` says why in one sentence, where the image could not be scored. `digest` is the SHA-256 of the
    decode record.
    """

    file: str
    study: str
    joint: str | None = None
    p_joint: tuple[float, ...] | None = None
    p_abnormal: float | None = None
    abnormal: bool | None = None
    pred1: tuple[float, ...] | None = None
    pred2: tuple[float, ...] | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None
    patient: str | None = None
    novelty: float | None = None
    digest: str | None = None


@dataclass(frozen=True)
class StudyPrediction:
    """What a model says of one study: the mean over its scored images."""

    study: str
    joint: str | None
    p_joint: tuple[float, ...] | None
    p_abnormal: float | None
    abnormal: bool | None
    images: int
    errors: int
    flags: tuple[str, ...] = ()
    patient: str | None = None


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax over the last axis of `scores` / `temperature`, in float64."""
    scaled = np.asarray(scores, np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return typing.cast(np.ndarray, scaled / scaled.sum(axis=-1, keepdims=True))


def score(
    contract: ModelContract,
    pred1: np.ndarray,
    pred2: np.ndarray,
    *,
    at: str = "balanced",
    novelty: float | None = None,
) -> dict[str, Any]:
    """Fields of a Prediction that follow from the raw scores `pred1` (2,) and `pred2` (7,) of one image.

    Raises DataError where the contract has no operating point `at` or a score is not finite.
    """
    if not (np.isfinite(pred1).all() and np.isfinite(pred2).all()):
        raise DataError("the model's scores are not finite; the model file is damaged or the precision overflows")
    p_abnormal = float(softmax(pred1, contract.calibration.abnormality_temperature)[1])
    p_joint = softmax(pred2, contract.calibration.joint_temperature)
    flags = []
    if p_joint.max() < contract.joint_confidence:
        flags.append(FLAG_LOW_CONFIDENCE)
    if contract.novelty and novelty is not None and novelty > contract.novelty.threshold:
        flags.append(FLAG_NOVEL)
    return {
        "joint": JointType(int(p_joint.argmax())).label,
        "p_joint": tuple(map(float, p_joint)),
        "p_abnormal": p_abnormal,
        "abnormal": p_abnormal >= threshold(contract, at),
        "pred1": tuple(map(float, pred1)),
        "pred2": tuple(map(float, pred2)),
        "novelty": novelty,
        "flags": tuple(flags),
    }


def threshold(contract: ModelContract, at: str) -> float:
    """Calibrated probability of the operating point named `at`.

    Raises DataError where the contract lacks it.
    """
    try:
        return contract.operating_points[at]
    except KeyError:
        known = ", ".join(sorted(contract.operating_points))
        raise DataError(f"model '{contract.name}' has no operating point '{at}'; it has {known}") from None


def studies(images: Iterable[Prediction], at: float) -> list[StudyPrediction]:
    """Study rows in order of first appearance: mean probabilities over the scored images of each study.

    `at` is the threshold of the calibrated probability in (0, 1). The order of the views does not matter
    (math.fsum). A study without a scored image has None for its scores.
    """
    groups: dict[str, list[Prediction]] = {}
    for image in images:
        groups.setdefault(image.study, []).append(image)
    return [_study(name, rows, at) for name, rows in groups.items()]


def _study(name: str, rows: Sequence[Prediction], at: float) -> StudyPrediction:
    scored = [row for row in rows if row.p_abnormal is not None and row.p_joint is not None]
    flags = tuple(sorted({flag for row in rows for flag in row.flags}))
    errors = len(rows) - len(scored)
    patient = rows[0].patient
    if not scored:
        return StudyPrediction(name, None, None, None, None, len(rows), errors, flags, patient)
    p_abnormal = math.fsum(row.p_abnormal or 0.0 for row in scored) / len(scored)
    columns = zip(*(row.p_joint or () for row in scored), strict=True)
    p_joint = tuple(math.fsum(column) / len(scored) for column in columns)
    joint = JointType(int(np.argmax(p_joint))).label
    return StudyPrediction(name, joint, p_joint, p_abnormal, p_abnormal >= at, len(rows), errors, flags, patient)


@dataclass(frozen=True)
class Predictions:
    """A predictions table: image rows, the model that made them, and the operating point in force."""

    images: tuple[Prediction, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    threshold: float = 0.5

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def studies(self) -> list[StudyPrediction]:
        """Study rows derived from the image rows."""
        return studies(self.images, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """`{"model", "images", "studies"}`, ready for JSON."""
        return {
            "model": dict(self.model) | {"threshold": self.threshold},
            "images": [dataclasses.asdict(row) for row in self.images],
            "studies": [dataclasses.asdict(row) for row in self.studies],
        }

    def dumps(self, form: str) -> str:
        """The table as text: `json` (model, images, studies), `jsonl` or `csv` (image rows)."""
        if form == "json":
            return json.dumps(self.to_dict(), indent=1)
        if form == "jsonl":
            return "\n".join(json.dumps(dataclasses.asdict(row)) for row in self.images)
        buffer = io.StringIO()
        columns = [f.name for f in dataclasses.fields(Prediction)]
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: json.dumps(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(row).items()}
            for row in self.images
        )
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Write the table whole or not at all; the suffix (json, jsonl, csv, parquet) is the format.

        Raises DataError for another suffix.
        """
        form = path.suffix.lstrip(".").lower()
        if form not in FORMATS:
            raise DataError(
                f"{path}: cannot tell the format; end the name in {', '.join('.' + f for f in FORMATS)}"
            )
        partial = path.with_name(path.name + ".partial")
        if form == "parquet":
            _write_parquet(self, partial)
        else:
            partial.write_text(self.dumps(form), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a table written as json, jsonl, csv or parquet; only json and parquet keep the model.

        Raises DataError that names the file and the field.
        """
        form = path.suffix.lstrip(".").lower()
        try:
            if form == "parquet":
                rows, model = _read_parquet(path)
            elif form == "json":
                value = json.loads(path.read_text(encoding="utf-8"))
                rows, model = value["images"], value["model"]
            elif form == "jsonl":
                lines = path.read_text(encoding="utf-8").splitlines()
                rows, model = [json.loads(line) for line in lines if line.strip()], {}
            elif form == "csv":
                with path.open(encoding="utf-8", newline="") as stream:
                    rows, model = [_from_csv(row) for row in csv.DictReader(stream)], {}
            else:
                raise DataError(f"{path}: not a predictions table; expected {', '.join('.' + f for f in FORMATS)}")
            images = tuple(_prediction(row) for row in rows)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}: not a predictions table of mskscreen ({error}); run predict again"
            ) from error
        return cls(images, model, float(model.get("threshold", 0.5)))


def _prediction(row: Mapping[str, Any]) -> Prediction:
    names = {f.name for f in dataclasses.fields(Prediction)}
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k in names}
    values["flags"] = values.get("flags") or ()
    return Prediction(**values)


def _from_csv(row: Mapping[str, str]) -> dict[str, Any]:
    numbers = {"p_joint", "p_abnormal", "pred1", "pred2", "flags", "novelty"}
    values = {k: json.loads(v) if k in numbers and v else v or None for k, v in row.items()}
    return values | {"abnormal": {"True": True, "False": False}.get(row["abnormal"])}


def _write_parquet(table: Predictions, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "p_joint": pa.list_(pa.float64()),
        "pred1": pa.list_(pa.float64()),
        "pred2": pa.list_(pa.float64()),
        "flags": pa.list_(pa.string()),
        "p_abnormal": pa.float64(),
        "novelty": pa.float64(),
        "abnormal": pa.bool_(),
    }
    schema = pa.schema([(f.name, kinds.get(f.name, pa.string())) for f in dataclasses.fields(Prediction)])
    model = json.dumps(dict(table.model) | {"threshold": table.threshold})
    rows = [dataclasses.asdict(row) for row in table.images]
    pq.write_table(pa.Table.from_pylist(rows, schema.with_metadata({"mskscreen.model": model})), path)


def _read_parquet(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({error}); run predict again") from error
    metadata = table.schema.metadata or {}
    return table.to_pylist(), json.loads(metadata.get(b"mskscreen.model", b"{}"))
