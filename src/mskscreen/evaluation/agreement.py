"""Agreement of a model with readers and of readers with each other, and the protocol of MURA."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
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
from mskscreen.evaluation.metrics import TOO_FEW, Statistic, threshold_statistic

MODEL = "model"
UNRATED = -1
_UNDEFINED = "one of the two calls every study alike"


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
    The model calls at `threshold`, by default that of its table. Raises DataError for an unknown reader or one of
    the model's name, where no study was read, and where the table is silent on abnormality.
    """
    cases.table.require_abnormality("agreement with readers")
    if MODEL in readings.readers:
        raise DataError(f"a reader is named '{MODEL}', which names the model here; give the reader another name")
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
                calls = [raters[name][both] > 0 for name in (one, other)]
                parts[f"{one}\0{other}\0{joint}"] = Part(both, _kappa_statistic(*calls))
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


def _kappa_statistic(one: np.ndarray, other: np.ndarray) -> Statistic:
    """Cohen's kappa of two sets of calls (n,); undefined where either calls every study alike."""
    ways = (threshold_statistic(one, other), threshold_statistic(other, one))

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = [way(weights)["kappa"] for way in ways]
        return {"kappa": np.where(np.isfinite(found[1]), found[0], np.nan)}

    return statistic


# Takes weights of the subjects (R, n) and of the raters (R, m); gives name -> values (R,).
CrossedStatistic = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
_BLOCK = 2**21


def crossed(
    statistic: CrossedStatistic,
    subjects: int,
    raters: int,
    *,
    resamples: int = intervals.RESAMPLES,
    seed: int = 0,
    least: int = 1,
    why: str = "not defined",
) -> dict[str, Estimate]:
    """Estimates with percentile intervals of a bootstrap over subjects and over raters, both drawn anew each time.

    The interval speaks of other subjects and of other raters (of other subjects alone with a single rater). Raters
    are drawn until `least` of them differ: agreement within one rater is none.
    """
    values = statistic(np.ones((1, subjects)), np.ones((1, raters)))
    rng = np.random.default_rng(seed)
    drawn = []
    block = max(1, _BLOCK // max(1, subjects * raters))
    for start in range(0, resamples if subjects > 1 else 0, block):
        rows = min(block, resamples - start)
        cases = rng.multinomial(subjects, np.full(subjects, 1 / subjects), rows)
        readers = rng.multinomial(raters, np.full(raters, 1 / raters), rows)
        while len(again := np.flatnonzero((readers > 0).sum(axis=1) < min(least, raters))):
            readers[again] = rng.multinomial(raters, np.full(raters, 1 / raters), len(again))
        drawn.append(statistic(cases.astype(np.float64), readers.astype(np.float64)))
    return {
        name: estimate(float(value[0]), np.concatenate([d[name] for d in drawn]) if drawn else None, None, why)
        for name, value in values.items()
    }


def rater_statistic(ratings: np.ndarray, categories: int) -> CrossedStatistic:
    """Agreement of raters on a nominal scale: `agreement`, `cohen`, `fleiss` and `ac1`, NaN where undefined.

    `ratings` (n, m) holds categories from 0 and UNRATED. `agreement` is the mean over subjects of the share of
    agreeing pairs of raters; Fleiss' kappa (Psychological Bulletin 1971) and Gwet's AC1 (British Journal of
    Mathematical and Statistical Psychology 2008) correct it for chance, with subjects of one rater in the chance
    part alone (Gwet, Handbook of Inter-Rater Reliability 2014, chapter 2). `cohen` is the mean of Cohen's kappas
    of all pairs (Light, Psychological Bulletin 1971), 0 for a pair of which one always says the same, without the
    pairs of which both do, when it is 0/0. A rater that was drawn twice is not compared with itself.
    """
    chosen = (ratings[..., None] == np.arange(categories)).astype(np.float64)
    rated = chosen.sum(axis=2)

    def statistic(subjects: np.ndarray, raters: np.ndarray) -> dict[str, np.ndarray]:
        votes = np.einsum("rm,nmk->rnk", raters, chosen)
        total = votes.sum(axis=2)
        own = raters**2 @ rated.T
        pairs = total**2 - own
        shares = np.divide(votes, total[..., None], out=np.zeros_like(votes), where=total[..., None] > 0)
        agreeing = np.divide((votes**2).sum(axis=2) - own, pairs, out=np.zeros_like(pairs), where=pairs > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            observed = (subjects * agreeing).sum(axis=1) / (subjects * (pairs > 0)).sum(axis=1)
            prevalence = np.einsum("rn,rnk->rk", subjects, shares)
            prevalence /= (subjects * (total > 0)).sum(axis=1)[:, None]
            by_margins = (prevalence**2).sum(axis=1)
            by_guessing = (prevalence * (1 - prevalence)).sum(axis=1) / (categories - 1)
            return {
                "agreement": observed,
                "cohen": _mean_cohen(ratings, categories, subjects, raters),
                "fleiss": (observed - by_margins) / (1 - by_margins),
                "ac1": (observed - by_guessing) / (1 - by_guessing),
            }

    return statistic


def _mean_cohen(ratings: np.ndarray, categories: int, subjects: np.ndarray, raters: np.ndarray) -> np.ndarray:
    """Mean of Cohen's kappas of all pairs of raters but those that use one category, the same one, (R,)."""
    total, weight = np.zeros(len(subjects)), np.zeros(len(subjects))
    for one, other in itertools.combinations(range(ratings.shape[1]), 2):
        both = (ratings[:, one] >= 0) & (ratings[:, other] >= 0)
        cell = ratings[both, one] * categories + ratings[both, other]
        table = subjects[:, both] @ (cell[:, None] == np.arange(categories**2)).astype(np.float64)
        table = table.reshape(-1, categories, categories)
        count, same = table.sum(axis=(1, 2)), np.trace(table, axis1=1, axis2=2)
        margins = table.sum(axis=1), table.sum(axis=2)
        chance = (margins[0] * margins[1]).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            kappa = (same * count - chance) / (count * count - chance)
        defined = raters[:, one] * raters[:, other] * (chance < count * count)
        total += defined * np.nan_to_num(kappa)
        weight += defined
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
