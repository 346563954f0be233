"""The predictions table: one row per image, and the one function that derives study rows from it.

`predict` writes this table; evaluation, comparison, calibration, reports and DICOM objects read it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS, JointType
from mskscreen.contract import ModelContract
from mskscreen.errors import DataError
from mskscreen.storage import replacing

FLAG_ERROR = "error"
FLAG_LOW_CONFIDENCE = "low-confidence-joint"
FLAG_CONFLICT = "conflict"
FLAG_NOVEL = "not-like-training-data"
FLAG_UNAPPROVED = "unapproved-precision"
FLAG_MIXED_JOINTS = "mixed-joints"
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

    @property
    def sure_joint(self) -> str | None:
        """The joint, or None where it is in doubt (`low-confidence-joint`) or the image was not scored."""
        return None if FLAG_LOW_CONFIDENCE in self.flags else self.joint


@dataclass(frozen=True)
class StudyPrediction:
    """What a model says of one study: the mean over its scored images.

    `flags` are those of its images, and `mixed-joints` where they show different joints, none of them in doubt.
    """

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


class StudyTally:
    """Gathers image rows, in any order, into study rows: mean probabilities over the scored images of each study.

    Of an image it keeps only the probabilities. The order of the views does not matter (math.fsum).
    """

    def __init__(self, at: float) -> None:
        """`at` is the threshold of the calibrated probability of a study, in (0, 1)."""
        self._at = at
        self._studies: dict[str, _Views] = {}

    def add(self, image: Prediction) -> None:
        """Count an image in its study."""
        views = self._studies.setdefault(image.study, _Views(image.patient))
        views.images += 1
        views.flags.update(image.flags)
        if image.sure_joint is not None:
            views.joints.add(image.sure_joint)
            if len(views.joints) > 1:
                views.flags.add(FLAG_MIXED_JOINTS)
        if image.p_abnormal is not None and image.p_joint is not None:
            views.p_abnormal.append(image.p_abnormal)
            views.p_joint.append(image.p_joint)

    def rows(self) -> Iterator[StudyPrediction]:
        """Study rows in order of first appearance; a study without a scored image has None for its scores."""
        for name, views in self._studies.items():
            scored = len(views.p_abnormal)
            flags = tuple(sorted(views.flags))
            row = StudyPrediction(
                name, None, None, None, None, views.images, views.images - scored, flags, views.patient
            )
            if scored:
                p_abnormal = math.fsum(views.p_abnormal) / scored
                p_joint = tuple(math.fsum(column) / scored for column in zip(*views.p_joint, strict=True))
                joint = JointType(int(np.argmax(p_joint))).label
                abnormal = p_abnormal >= self._at
                row = dataclasses.replace(
                    row, joint=joint, p_joint=p_joint, p_abnormal=p_abnormal, abnormal=abnormal
                )
            yield row


@dataclass
class _Views:
    patient: str | None
    images: int = 0
    flags: set[str] = field(default_factory=set)
    joints: set[str] = field(default_factory=set)
    p_abnormal: list[float] = field(default_factory=list)
    p_joint: list[tuple[float, ...]] = field(default_factory=list)


def studies(images: Iterable[Prediction], at: float) -> list[StudyPrediction]:
    """Study rows of image rows: see `StudyTally`."""
    tally = StudyTally(at)
    for image in images:
        tally.add(image)
    return list(tally.rows())


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
            "model": _model(self.model, self.threshold),
            "images": [dataclasses.asdict(row) for row in self.images],
            "studies": [dataclasses.asdict(row) for row in self.studies],
        }

    def dumps(self, form: str) -> str:
        """The table as text: `json` (model, images, studies), `jsonl` or `csv` (image rows)."""
        return "".join(render(form, self.images, self.model, self.threshold))

    def write(self, path: Path) -> None:
        """Write the table whole or not at all: see `write_table`."""
        write_table(path, self.images, self.model, self.threshold)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a table written as json, jsonl, csv or parquet.

        Of the model, csv and jsonl keep the name, the digest of the contract and the threshold. A table without a
        threshold is called at 0.5. Raises DataError that names the file and the field, also where the threshold
        contradicts the calls of the rows.
        """
        images, model = read_images(path)
        highest = max((p for p, abnormal in _calls(images) if not abnormal), default=-math.inf)
        lowest = min((p for p, abnormal in _calls(images) if abnormal), default=math.inf)
        return cls(images, model, threshold_of(path, model, highest, lowest))


def read_images(path: Path) -> tuple[tuple[Prediction, ...], dict[str, Any]]:
    """Image rows of a table, and what it says of its model, whether or not they agree: see `Predictions.read`."""
    form = table_format(path)
    try:
        rows, model = _READERS[form](path)
        return tuple(row_of(row) for row in rows), {**model}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        raise DataError(f"{path}: not a predictions table of mskscreen ({error}); run predict again") from error


def threshold_of(path: Path, model: Mapping[str, Any], highest_normal: float, lowest_abnormal: float) -> float:
    """The threshold of a table, 0.5 where `model` does not say it.

    Raises DataError where it does not lie between the highest probability of an image called normal and the lowest
    of one called abnormal.
    """
    given = model.get("threshold")
    try:
        found = 0.5 if given is None else float(given)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: threshold '{given}' is not a number; run predict again") from error
    if highest_normal < found <= lowest_abnormal:
        return found
    said = "holds no threshold, and 0.5 contradicts" if given is None else f"threshold {found:g} contradicts"
    call = f"{lowest_abnormal:.4g} abnormal" if lowest_abnormal < found else f"{highest_normal:.4g} normal"
    raise DataError(
        f"{path}: {said} the column 'abnormal', which calls {call}; run predict again, or give the threshold of "
        "these calls in a column 'threshold'"
    )


def _calls(images: Iterable[Prediction]) -> Iterator[tuple[float, bool]]:
    """Probability and call of the images that have both."""
    return ((i.p_abnormal, i.abnormal) for i in images if i.p_abnormal is not None and i.abnormal is not None)


def render(form: str, images: Iterable[Prediction], model: Mapping[str, Any], threshold: float) -> Iterator[str]:
    """A table as pieces of text, row by row as the images come: see `Predictions.dumps`."""
    # Formats without a place for the model repeat in every row what the calls depend on.
    origin = {column: {**model, "threshold": threshold}.get(key) for column, key in _ORIGIN.items()}
    if form == "json":
        tally = StudyTally(threshold)
        yield f'{{"model": {json.dumps(_model(model, threshold))},\n"images": ['
        for number, image in enumerate(images):
            tally.add(image)
            yield ("," if number else "") + "\n" + json.dumps(dataclasses.asdict(image))
        yield '],\n"studies": ['
        for number, study in enumerate(tally.rows()):
            yield ("," if number else "") + "\n" + json.dumps(dataclasses.asdict(study))
        yield "]}\n"
    elif form == "jsonl":
        for image in images:
            yield json.dumps(dataclasses.asdict(image) | origin) + "\n"
    else:
        yield _csv_line((*(f.name for f in dataclasses.fields(Prediction)), *origin))
        for image in images:
            values = (*dataclasses.astuple(image), *origin.values())
            yield _csv_line(json.dumps(v) if isinstance(v, tuple) else v for v in values)


def _model(model: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """What a table says of its model: with the order of the probabilities, which is that of every contract."""
    return {**model, "threshold": threshold, "joints": list(JOINT_LABELS)}


def write_table(path: Path, images: Iterable[Prediction], model: Mapping[str, Any], threshold: float) -> None:
    """Write a table whole or not at all; the suffix (json, jsonl, csv, parquet) is the format.

    Rows are written as they come. Raises DataError for another suffix.
    """
    form = table_format(path)
    with replacing(path) as partial:
        if form == "parquet":
            _write_parquet(partial, images, _model(model, threshold))
        else:
            with partial.open("w", encoding="utf-8", newline="") as stream:
                stream.writelines(render(form, images, model, threshold))


def table_format(path: Path) -> str:
    """Format of a table by the suffix of its name.

    Raises DataError.
    """
    form = path.suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise DataError(f"{path}: cannot tell the format; end the name in {', '.join('.' + f for f in FORMATS)}")
    return form


def _csv_line(values: Iterable[Any]) -> str:
    buffer = io.StringIO()
    # With "\n" as its own terminator the writer would leave a bare "\r" unquoted, and no reader expects that.
    csv.writer(buffer, lineterminator="\r\n").writerow(values)
    return buffer.getvalue()[:-2] + "\n"


def row_of(row: Mapping[str, Any]) -> Prediction:
    """A row from its JSON; columns that this version does not know are left out.

    Raises KeyError, TypeError or ValueError where it is not one.
    """
    values: dict[str, Any] = {
        name: tuple(row[name]) if isinstance(row[name], list) else row[name] for name in _COLUMNS & row.keys()
    }
    values["flags"] = values.get("flags") or ()
    prediction = Prediction(**values)
    if not (isinstance(prediction.file, str) and isinstance(prediction.study, str)):
        raise ValueError("fields 'file' and 'study' must hold text")
    for name, count in _LENGTHS.items():
        scores = getattr(prediction, name)
        if scores is not None and (len(scores) != count or not all(isinstance(x, int | float) for x in scores)):
            raise ValueError(f"field '{name}' must hold {count} numbers")
    return prediction


_COLUMNS = frozenset(f.name for f in dataclasses.fields(Prediction))
_LENGTHS = {"p_joint": len(JointType), "pred1": 2, "pred2": len(JointType)}
_ORIGIN = {"model": "name", "contract": "contract", "threshold": "threshold"}


def _origin(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The model as the rows of a table name it, each the same one."""
    found: dict[str, Any] = {}
    for column, key in _ORIGIN.items():
        values = {row.get(column) for row in rows}
        if len(values) > 1:
            raise ValueError(f"column '{column}' differs from row to row; keep the rows of each in a table apart")
        found[key] = next(iter(values), None)
    return {key: value for key, value in found.items() if value is not None}


def _read_json(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    value = json.loads(path.read_text(encoding="utf-8"))
    return value["images"], value["model"]


def _read_jsonl(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream if line.strip()]
    return rows, _origin(rows)


def _read_csv(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    numbers = {"p_joint", "p_abnormal", "pred1", "pred2", "flags", "novelty", "threshold"}
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            values = {k: json.loads(v) if k in numbers and v else v or None for k, v in row.items()}
            call = {"True": True, "False": False}.get(row.get("abnormal", ""))
            rows.append(values | {"p_abnormal": values["p_abnormal"], "abnormal": call})
    return rows, _origin(rows)


def _write_parquet(path: Path, images: Iterable[Prediction], model: Mapping[str, Any]) -> None:
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
    fields = [(f.name, kinds.get(f.name, pa.string())) for f in dataclasses.fields(Prediction)]
    schema = pa.schema(fields, {"mskscreen.model": json.dumps(model)})
    rows = iter(images)
    with pq.ParquetWriter(path, schema) as writer:
        while group := [dataclasses.asdict(row) for row in itertools.islice(rows, 10_000)]:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _read_parquet(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file ({error}); run predict again") from error
    metadata = table.schema.metadata or {}
    return table.to_pylist(), json.loads(metadata.get(b"mskscreen.model", b"{}"))


_READERS = {"json": _read_json, "jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet}
