"""The predictions table as columns: a million rows fit in a few hundred megabytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.predictions import Predictions, threshold_of

NO_JOINTS = "the table holds no probabilities of joint types"
_LISTS = {"p_joint": len(JOINT_LABELS), "pred1": 2, "pred2": len(JOINT_LABELS)}


@dataclass(frozen=True)
class Table:
    """Image rows of a predictions table in order, NaN where an image could not be scored.

    `p_abnormal` (n,), `p_joint` (n, 7), `pred1` (n, 2), `pred2` (n, 7) are float64. `hard` is True where
    `p_abnormal` holds calls 0 and 1 and nothing else is known. `digest` pins the bytes of each image and is
    empty where a table does not have it.
    """

    file: Sequence[str]
    study: Sequence[str]
    patient: Sequence[str | None]
    p_abnormal: np.ndarray
    p_joint: np.ndarray
    pred1: np.ndarray
    pred2: np.ndarray
    model: Mapping[str, Any]
    threshold: float = 0.5
    name: str = "predictions"
    hard: bool = False
    digest: Sequence[str | None] = ()

    def __len__(self) -> int:
        return len(self.file)

    @cached_property
    def silent(self) -> bool:
        """Whether it says nothing of abnormality, only of joints: its model did not learn that."""
        return bool(np.isfinite(self.p_joint).any() and not np.isfinite(self.p_abnormal).any())

    @property
    def no_scores(self) -> str | None:
        """Why it holds no probabilities of abnormality, None where it does."""
        if self.silent:
            return "the model did not learn abnormality"
        return "the table holds calls, not probabilities" if self.hard else None

    def require_abnormality(self, what: str) -> None:
        """Raise DataError where the table is `silent`; `what` needs more."""
        if self.silent:
            raise DataError(f"{self.name}: {self.no_scores}, which {what} needs; predict with a model that did")

    @classmethod
    def of(cls, predictions: Predictions, name: str = "predictions") -> Table:
        """Columns of a table in memory."""
        rows = predictions.images

        def matrix(name: str) -> np.ndarray:
            return _matrix([getattr(row, name) for row in rows], _LISTS[name])

        return cls(
            file=[row.file for row in rows],
            study=[row.study for row in rows],
            patient=[row.patient for row in rows],
            p_abnormal=np.array(
                [np.nan if row.p_abnormal is None else row.p_abnormal for row in rows], np.float64
            ),
            p_joint=matrix("p_joint"),
            pred1=matrix("pred1"),
            pred2=matrix("pred2"),
            model=predictions.model,
            threshold=predictions.threshold,
            name=name,
            digest=[row.digest for row in rows],
        )


def read_table(path: Path) -> Table:
    """Read a predictions table of any format that `predict` writes; Parquet goes column by column.

    Raises DataError that names the file.
    """
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    return Table.of(Predictions.read(path), path.name)


def _matrix(values: Iterable[Sequence[float] | None], width: int) -> np.ndarray:
    missing = (np.nan,) * width
    rows = [missing if value is None else value for value in values]
    try:
        return np.array(rows, np.float64).reshape(len(rows), width)
    except ValueError as error:
        raise DataError(f"predictions table: a row does not hold {width} scores; run predict again") from error


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(path)
        model = json.loads((source.schema_arrow.metadata or {}).get(b"mskscreen.model", b"{}"))

        # One column at a time: all of them at once need three times the memory.
        def column(name: str) -> Any:
            return source.read([name])[name].combine_chunks()

        p_abnormal = column("p_abnormal").to_numpy(zero_copy_only=False).astype(np.float64)
        called = np.full(len(p_abnormal), np.nan)
        if "abnormal" in source.schema_arrow.names:
            called = column("abnormal").cast("int8").cast("float64").to_numpy(zero_copy_only=False)
        highest = float(np.fmax.reduce(p_abnormal[called == 0], initial=-np.inf))
        lowest = float(np.fmin.reduce(p_abnormal[called == 1], initial=np.inf))
        return Table(
            file=column("file").to_pylist(),
            study=_shared(column("study")),
            patient=_shared(column("patient")),
            p_abnormal=p_abnormal,
            p_joint=_lists(column("p_joint"), _LISTS["p_joint"]),
            pred1=_lists(column("pred1"), _LISTS["pred1"]),
            pred2=_lists(column("pred2"), _LISTS["pred2"]),
            model=model,
            threshold=threshold_of(path, model, highest, lowest),
            name=path.name,
            digest=column("digest").to_pylist() if "digest" in source.schema_arrow.names else (),
        )
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a predictions table of mskscreen ({error}); run predict again") from error


def _shared(column: Any) -> list[Any]:
    """A column of text in which equal values are one object."""
    encoded = column.dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    return [values[i] for i in encoded.indices.fill_null(-1).to_pylist()]


def _lists(column: Any, width: int) -> np.ndarray:
    """A column of lists as (n, width), NaN where the list is null."""
    out = np.full((len(column), width), np.nan)
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    out[~np.asarray(column.is_null())] = flat.reshape(-1, width)
    return out
