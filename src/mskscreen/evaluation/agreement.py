"""Agreement of a model with readers and of readers with each other, and the protocol of MURA."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation import intervals
from mskscreen.evaluation.cases import Cases
from mskscreen.evaluation.estimates import Estimate, estimate
from mskscreen.evaluation.intervals import Part, draw
from mskscreen.evaluation.keys import study_key
from mskscreen.evaluation.labels import parse_label
from mskscreen.evaluation.metrics import threshold_statistic
from mskscreen.evaluation.summary import TOO_FEW

MODEL = "model"
_UNDEFINED = "no second class among the two sets of calls"


@dataclass(frozen=True)
class Readings:
    """Calls of readers, `calls` (studies, readers): 1 abnormal, 0 normal, NaN where a reader did not read."""

    readers: tuple[str, ...]
    studies: tuple[str, ...]
    calls: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two raters on the studies that both read, overall or of one joint type."""

    one: str
    other: str
    joint: str
    studies: int
    kappa: Estimate


def read_readings(path: Path) -> Readings:
    """Read a CSV of readers' calls, either `study,reader,call` or `study` and one column a reader.

    Raises DataError that names the row and the field.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8 ({error}); save it again as such") from error
    if not rows or "study" not in rows[0]:
        raise DataError(f"{path}: no column 'study'; the columns are study,reader,call or study and one a reader")
    if {"reader", "call"} <= set(rows[0]):
        entries = [(row["study"], row["reader"], row["call"]) for row in rows]
    else:
        readers = [name for name in rows[0] if name and name != "study"]
        entries = [(row["study"], name, row[name]) for row in rows for name in readers]
    number: dict[str, int] = {}
    column: dict[str, int] = {}
    found: dict[tuple[int, int], float] = {}
    for i, (study, reader, call) in enumerate(entries):
        if not study or not reader:
            raise DataError(f"{path}: entry {i + 1} names no study or no reader; complete it")
        cell = (number.setdefault(study_key(study), len(number)), column.setdefault(reader, len(column)))
        value = parse_label(call, f"{path}: entry {i + 1}")
        if not math.isnan(value) and found.setdefault(cell, value) != value:
            raise DataError(f"{path}: reader '{reader}' calls one study twice and differently; keep one call")
    calls = np.full((len(number), len(column)), np.nan)
    for cell, value in found.items():
        calls[cell] = value
    return Readings(tuple(column), tuple(number), calls)


def majority(calls: np.ndarray) -> np.ndarray:
    """Majority of the calls (n, readers) of each study: 1, 0, or NaN where votes are even or there are none."""
    votes = np.isfinite(calls).sum(axis=1)
    abnormal = np.nansum(calls, axis=1)
    return np.where(2 * abnormal == votes, np.nan, 2 * abnormal > votes).astype(np.float64)


def agree(
    cases: Cases,
    readings: Readings,
    *,
    reference: Sequence[str] = (),
    threshold: float | None = None,
    resamples: int = intervals.RESAMPLES,
    seed: int = 0,
) -> list[Agreement]:
    """Kappa of the model and of readers, overall and per joint, with intervals of a bootstrap over patients.

    With `reference` readers the protocol of MURA (arXiv:1712.06957, section 4): the model and every other reader
    against the majority of the reference. Without, model against each reader and each reader against each other.
    Raises DataError for an unknown reader or where no study was read.
    """
    unknown = [name for name in reference if name not in readings.readers]
    if unknown:
        raise DataError(f"no reader '{unknown[0]}' in the readings; they hold {', '.join(readings.readers)}")
    position = {key: i for i, key in enumerate(readings.studies)}
    rows = np.array([position.get(key, -1) for key in cases.keys])
    if not (rows >= 0).any():
        raise DataError("no study of the predictions was read by a reader; compare the study names of both")
    calls = np.where((rows >= 0)[:, None], readings.calls[rows], np.nan)
    raters = {name: calls[:, k] for k, name in enumerate(readings.readers)}
    raters[MODEL] = (cases.p >= (cases.table.threshold if threshold is None else threshold)).astype(np.float64)
    if reference:
        chosen = [readings.readers.index(name) for name in reference]
        title = f"majority of {', '.join(reference)}"
        others = [name for name in (MODEL, *readings.readers) if name not in reference]
        raters[title] = majority(calls[:, chosen])
        pairs = [(name, title) for name in others]
    else:
        pairs = list(itertools.combinations((MODEL, *readings.readers), 2))
    return _kappas(cases, raters, pairs, resamples, seed)


def _kappas(
    cases: Cases, raters: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]], resamples: int, seed: int
) -> list[Agreement]:
    groups = {"all": np.arange(len(cases))}
    groups |= {name: np.flatnonzero(cases.joint == k) for k, name in enumerate(JOINT_LABELS)}
    parts: dict[str, Part] = {}
    sizes: dict[tuple[str, str, str], int] = {}
    for joint, rows in groups.items():
        for one, other in pairs:
            both = rows[np.isfinite(raters[one][rows]) & np.isfinite(raters[other][rows])]
            if len(rows):
                sizes[one, other, joint] = len(both)
            if len(both) >= TOO_FEW:
                statistic = threshold_statistic(raters[one][both] > 0, raters[other][both] > 0)
                parts[f"{one}\0{other}\0{joint}"] = Part(both, statistic)
    draws = draw(parts, cases.patient, resamples=resamples, seed=seed)

    def kappa(key: str) -> Estimate:
        if key not in parts:
            return Estimate(None, reason=f"too few: fewer than {TOO_FEW} studies read by both")
        again, left_out = (d[key]["kappa"] if d else None for d in (draws.replicates, draws.jackknife))
        return estimate(draws.estimate[key]["kappa"], again, left_out, _UNDEFINED)

    return [
        Agreement(one, other, joint, size, kappa(f"{one}\0{other}\0{joint}"))
        for (one, other, joint), size in sizes.items()
    ]
