"""Operating points: chosen on development studies, judged on other studies."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mskscreen.data.manifest import HELD_OUT
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases, listed
from mskscreen.evaluation.keys import keys
from mskscreen.evaluation.labels import Labels
from mskscreen.mura_path import mura_path

Criterion = Literal["youden", "sensitivity", "specificity", "cost"]
# Thresholds of a contract lie in (0, 1).
_EDGE = 1e-9


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    `value` is the target of the sensitivity or specificity, or for `cost` what a missed abnormality costs in units
    of a false alarm.
    """

    criterion: Criterion
    value: float | None = None

    def __str__(self) -> str:
        return self.criterion if self.value is None else f"{self.criterion} {self.value:g}"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold of the calibrated study probability, and what it reached where it was chosen."""

    threshold: float
    rule: Rule
    sensitivity: float
    specificity: float


RULES: Mapping[str, Rule] = {
    "balanced": Rule("youden"),
    "sensitive": Rule("sensitivity", 0.95),
    "specific": Rule("specificity", 0.95),
}


def choose(labels: np.ndarray, p: np.ndarray, rule: Rule) -> OperatingPoint:
    """Threshold of `p` (n,) in (0, 1), abnormal at p >= threshold, that fulfils `rule` on boolean `labels` (n,).

    Thresholds lie midway between neighbouring scores. `sensitivity` takes the highest threshold that reaches the
    target, `specificity` the lowest; `youden` maximises sensitivity + specificity (Youden, Cancer 1950), `cost`
    minimises the mean cost; of equal ones the lowest threshold, the more sensitive, is taken.

    Raises DataError where a class is missing.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        raise DataError("an operating point needs abnormal and normal development studies; add the missing ones")
    scores = np.unique(p)
    edges = np.concatenate([[0.0], scores, [1.0]])
    thresholds = np.clip((edges[1:] + edges[:-1]) / 2, _EDGE, 1 - _EDGE)
    found = positives - np.searchsorted(np.sort(p[labels]), thresholds)
    cleared = np.searchsorted(np.sort(p[~labels]), thresholds)
    best = _best(rule, found, cleared, positives, negatives)
    return OperatingPoint(
        float(thresholds[best]), rule, float(found[best] / positives), float(cleared[best] / negatives)
    )


def _best(rule: Rule, found: np.ndarray, cleared: np.ndarray, positives: int, negatives: int) -> int:
    """Index of the threshold, from the counts that each calls rightly: whole numbers know a tie from rounding."""
    value = 1.0 if rule.value is None else rule.value
    # Scores of exactly 0 or 1 can keep a target out of reach; the end of the scale comes nearest then.
    if rule.criterion == "sensitivity":
        return max(int((found / positives >= value).sum()) - 1, 0)
    if rule.criterion == "specificity":
        return min(int((cleared / negatives < value).sum()), len(cleared) - 1)
    if rule.criterion == "cost":
        return int(np.argmin(value * (positives - found) + (negatives - cleared)))
    return int(np.argmax(found * negatives + cleared * positives))


def choose_all(development: Cases, rules: Mapping[str, Rule] = RULES) -> dict[str, OperatingPoint]:
    """One operating point for each rule, on development studies."""
    return {name: choose(development.labels, development.p, rule) for name, rule in rules.items()}


def require_apart(development: Cases, evaluation: Cases, *, other_set: bool = False) -> int:
    """Number of patients that both share, which should be none.

    With `other_set` the development studies are declared to be of another data set, where equal names mean
    nothing; then the digests of the images must be known, and there are no shared patients.

    Raises DataError, with rows of `evaluation`, where a study or an image is in both: what was chosen on a study
    is not judged on it.
    """
    names = (development.table.name, evaluation.table.name)
    ours, theirs = _digests(development), _digests(evaluation)
    if other_set and not (ours and theirs):
        raise DataError(
            f"{names[0]} and {names[1]}: without digests it cannot be seen that they hold other images; "
            "run predict again"
        )
    if copies := [theirs[digest] for digest in ours.keys() & theirs.keys()]:
        raise DataError(_refusal("images", *names, copies))
    if other_set:
        return 0
    if shared := _rows_of(set(development.keys), evaluation):
        raise DataError(_refusal("studies", *names, shared))
    return len(set(development.patients) & set(evaluation.patients))


@dataclass(frozen=True)
class Training:
    """The studies a model was trained on, and how many of their patients are evaluated, which should be none."""

    name: str
    studies: int
    patients: int
    shared_patients: int


def require_not_trained_on(training: Labels, evaluation: Cases) -> Training:
    """Count what `training` lists and the patients that it shares with the evaluation, by name.

    Its rows of the evaluation splits, and those without a fold where others have one, are not trained on. Raises
    DataError where no other is left or, with rows of `evaluation`, where a study or an image is in both.
    """
    images: set[str | None] = set()
    studies: set[str] = set()
    patients: set[str] = set()
    splits, folds = (training.columns.get(name) for name in ("split", "fold"))
    for row, (image, study, patient) in enumerate(
        zip(training.image, training.study, training.patient, strict=True)
    ):
        if (splits and splits[row] in HELD_OUT) or (folds and folds[row] is None):
            continue
        name, key = keys(image, study)
        found = mura_path(key)
        images.add(name)
        studies.add(key)
        patients.add(patient or (found.patient if found else key))
    if not studies:
        raise DataError(f"{training.name}: holds no image that was trained on; name the manifest of the training")
    table = evaluation.table
    if shared := _rows_of(studies, evaluation):
        raise DataError(_refusal("studies", training.name, table.name, shared))
    # The list may name no studies, or other ones than the table does.
    if shared := [row + 1 for row in evaluation.rows.tolist() if keys(table.file[row], "")[0] in images]:
        raise DataError(_refusal("images", training.name, table.name, shared))
    return Training(training.name, len(studies), len(patients), len(patients & set(evaluation.patients)))


def _rows_of(studies: Collection[str], cases: Cases) -> list[int]:
    return [row for key, row in zip(cases.keys, cases.first_rows.tolist(), strict=True) if key in studies]


def _refusal(what: str, chosen_on: str, judged_on: str, rows: Collection[int]) -> str:
    return (
        f"{len(rows)} {what} are in both {chosen_on} and {judged_on} ({listed(rows)} of {judged_on}); "
        "train, calibrate and choose thresholds on other studies"
    )


def _digests(cases: Cases) -> dict[str, int]:
    """Row of each image digest, from 1; empty where the table has none."""
    digests = cases.table.digest
    return {digest: row + 1 for row in cases.rows.tolist() if (digest := digests[row])} if digests else {}


def fingerprint(cases: Cases) -> str:
    """SHA-256 of the sorted study keys: the same studies give the same text, whatever their scores."""
    return hashlib.sha256("\n".join(sorted(map(str, cases.keys))).encode()).hexdigest()


def projected(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    """PPV and NPV (R,) at a stated prevalence in (0, 1), by Bayes' theorem."""
    if not 0 < prevalence < 1:
        raise DataError(f"prevalence {prevalence} is not between 0 and 1; give a fraction such as 0.1")
    with np.errstate(divide="ignore", invalid="ignore"):
        true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
        clear, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
        return {"ppv": true / (true + false), "npv": clear / (clear + missed)}
