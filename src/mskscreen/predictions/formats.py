"""The predictions table as a file: json, jsonl, csv or parquet."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mskscreen.anatomy import JOINT_LABELS, JointType
from mskscreen.errors import DataError
from mskscreen.predictions.rows import Prediction
from mskscreen.predictions.study import StudyTally
from mskscreen.storage import replacing

FORMATS = ("json", "jsonl", "csv", "parquet")
_HEAD = 1 << 16


def read_images(path: Path) -> tuple[tuple[Prediction, ...], dict[str, Any]]:
    """Image rows of a table, and what it says of its model, whether or not they agree: see `Predictions.read`."""
    form = table_format(path)
    try:
        rows, model = _READERS[form](path)
        return tuple(row_of(row) for row in rows), {**model}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        why = f"field {error} is missing" if isinstance(error, KeyError) else error
        raise DataError(f"{path}: not a predictions table of mskscreen ({why}); run predict again") from error


def is_table(path: Path) -> bool:
    """Whether a file looks like a predictions table, by its name and what it begins with."""
    form = path.suffix.lstrip(".").lower()
    if form not in FORMATS or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            if form != "parquet":
                return b"p_abnormal" in stream.read(_HEAD)
        import pyarrow.parquet as pq

        return "p_abnormal" in pq.read_schema(path).names
    except (OSError, ImportError, ValueError):
        return False


def render(form: str, images: Iterable[Prediction], model: Mapping[str, Any], threshold: float) -> Iterator[str]:
    """A table as pieces of text, row by row as the images come: see `Predictions.dumps`.

    Raises DataError for another form.
    """
    # Formats without a place for the model repeat in every row what the calls depend on.
    origin = {column: {**model, "threshold": threshold}.get(key) for column, key in _ORIGIN.items()}
    if form == "json":
        tally = StudyTally(threshold)
        yield f'{{"model": {json.dumps(described(model, threshold))},\n"images": ['
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
    elif form == "csv":
        yield _csv_line((*(f.name for f in dataclasses.fields(Prediction)), *origin))
        for image in images:
            values = (*dataclasses.astuple(image), *origin.values())
            yield _csv_line(json.dumps(v) if isinstance(v, tuple) else v for v in values)
    else:
        raise DataError(f"form is '{form}', which is no text of a table; name one of json, jsonl, csv")


def described(model: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """What a table says of its model: with the order of the probabilities, which is that of every contract."""
    return {**model, "threshold": threshold, "joints": list(JOINT_LABELS)}


def write_table(path: Path, images: Iterable[Prediction], model: Mapping[str, Any], threshold: float) -> None:
    """Write a table whole or not at all; the suffix (json, jsonl, csv, parquet) is the format.

    Rows are written as they come. Raises DataError for another suffix.
    """
    form = table_format(path)
    with replacing(path) as partial:
        if form == "parquet":
            _write_parquet(partial, images, described(model, threshold))
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
    prediction = Prediction(row["file"], row["study"], **values)
    for name, (kind, said) in _KINDS.items():
        if not isinstance(getattr(prediction, name), kind):
            raise ValueError(f"field '{name}' must hold {said}")
    for name, count in _LENGTHS.items():
        scores = getattr(prediction, name)
        if scores is not None and (len(scores) != count or not all(isinstance(x, int | float) for x in scores)):
            raise ValueError(f"field '{name}' must hold {count} numbers")
    return prediction


_COLUMNS = frozenset(f.name for f in dataclasses.fields(Prediction)) - {"file", "study"}
_KINDS: dict[str, tuple[Any, str]] = {
    "file": (str, "text"),
    "study": (str, "text"),
    "p_abnormal": (int | float | None, "a number"),
    "abnormal": (bool | None, "true or false"),
    "novelty": (int | float | None, "a number"),
    "flags": (tuple, "a list"),
}
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
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            values = {k: json.loads(v) if k in numbers and v else v or None for k, v in row.items()}
            call = {"true": True, "false": False}.get((row.get("abnormal") or "").lower())
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
