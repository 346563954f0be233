"""Two or more models on the same studies: paired differences with intervals, paired tests, Holm's correction."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation import intervals
from mskscreen.evaluation.cases import Cases, listed
from mskscreen.evaluation.estimates import Estimate, estimate, estimates
from mskscreen.evaluation.intervals import Draws, Part, delong, draw
from mskscreen.evaluation.metrics import ABNORMALITY, abnormality_statistic, present, reason, threshold_metrics

PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Test:
    """A paired test of the difference in one metric: p-value, and after Holm's correction over all pairs."""

    name: str
    metric: str
    p: float | None
    adjusted: float | None = None


@dataclass(frozen=True)
class Pair:
    """Second model minus first, by metric, and the tests of it."""

    first: str
    second: str
    differences: Mapping[str, Estimate]
    tests: tuple[Test, ...]


@dataclass(frozen=True)
class Comparison:
    """Every model on the same cases, and every pair of them."""

    cases: int
    patients: int
    models: Mapping[str, Mapping[str, Estimate]]
    pairs: tuple[Pair, ...]
    settings: Mapping[str, Any]


def same_cases(models: Mapping[str, Cases]) -> dict[str, Cases]:
    """The cases of every model in the order of the first.

    Raises DataError that counts the studies where they differ, or whose labels differ, and gives their rows.
    """
    first_name, first = next(iter(models.items()))
    aligned = {first_name: first}
    for name, cases in itertools.islice(models.items(), 1, None):
        if set(first.keys) != set(cases.keys):
            raise DataError(
                f"{first_name} and {name} hold different studies: {_only_in(first_name, first, cases)}, "
                f"{_only_in(name, cases, first)}; predict the same files with both"
            )
        position = {key: i for i, key in enumerate(cases.keys)}
        aligned[name] = cases.select(np.array([position[key] for key in first.keys], np.intp))
        unlike = first.first_rows[aligned[name].labels != first.labels]
        if len(unlike):
            where = f"{listed(unlike)} of {first_name}"
            raise DataError(f"{first_name} and {name}: labels of {len(unlike)} studies differ ({where})")
    return aligned


def _only_in(name: str, cases: Cases, other: Cases) -> str:
    known = set(other.keys)
    rows = [row for key, row in zip(cases.keys, cases.first_rows, strict=True) if key not in known]
    return f"{len(rows)} only in {name}" + (f" ({listed(rows)})" if rows else "")


def compare(
    models: Mapping[str, Cases],
    *,
    resamples: int = intervals.RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compare models on the same cases, each at the threshold of its table.

    Differences carry the intervals of a bootstrap that draws the same patients for every model. Tests: for AUROC
    DeLong's and the bootstrap over patients, McNemar's exact one for accuracy, and for kappa a permutation that
    swaps the calls of two models patient by patient. Holm's correction is over the pairs, one family for each
    test. Raises DataError where there are fewer than two models or their cases differ.
    """
    if len(models) < 2:
        raise DataError("a comparison needs at least two predictions tables; name another")
    for cases in models.values():
        cases.table.require_abnormality("a comparison")
    aligned = same_cases(models)
    at = {name: cases.table.threshold for name, cases in aligned.items()}
    first = next(iter(aligned.values()))
    every = np.arange(len(first))
    parts = {
        name: Part(every, abnormality_statistic(c.labels, c.p, at[name], scores=not c.table.hard))
        for name, c in aligned.items()
    }
    draws = draw(parts, first.patient, resamples=resamples, seed=seed)
    calls = {name: cases.p >= at[name] for name, cases in aligned.items()}
    occurs = {name: present(first.labels, calls[name]) for name in aligned}
    pairs = [
        Pair(
            one,
            other,
            _differences(draws, aligned, occurs, one, other),
            (
                *_tests(first, aligned[one], aligned[other], calls[one], calls[other], permutations, seed),
                Test("Bootstrap by patient", "auroc", _bootstrap_test(draws, one, other)),
            ),
        )
        for one, other in itertools.combinations(aligned, 2)
    ]
    return Comparison(
        cases=len(first),
        patients=len(first.patients),
        models={
            name: estimates(ABNORMALITY, draws, name, occurs[name], len(first), cases.table.no_scores)
            for name, cases in aligned.items()
        },
        pairs=_corrected(pairs),
        settings={"resamples": resamples, "permutations": permutations, "seed": seed, "thresholds": at},
    )


def _differences(
    draws: Draws, aligned: Mapping[str, Cases], occurs: Mapping[str, Mapping[str, int]], one: str, other: str
) -> dict[str, Estimate]:
    no_scores = aligned[one].table.no_scores or aligned[other].table.no_scores
    both = {need: min(count, occurs[other][need]) for need, count in occurs[one].items()}

    def minus(values: Mapping[str, Mapping[str, Any]], metric: str) -> Any:
        return values[other][metric] - values[one][metric] if one in values else None

    found = {}
    for name, metric in ABNORMALITY.items():
        why = reason(metric, both, len(aligned[one]), no_scores)
        if metric.scores and no_scores:
            found[name] = Estimate(None, reason=why)
        else:
            found[name] = estimate(
                minus(draws.estimate, name),
                minus(draws.replicates, name),
                minus(draws.jackknife, name),
                why,
            )
    return found


def _tests(
    truth: Cases, one: Cases, other: Cases, first: np.ndarray, second: np.ndarray, permutations: int, seed: int
) -> tuple[Test, ...]:
    hard = one.table.hard or other.table.hard
    return (
        Test("DeLong", "auroc", None if hard else delong_test(truth.labels, one.p, other.p)),
        Test("McNemar, exact", "accuracy", mcnemar(first == truth.labels, second == truth.labels)),
        Test(
            "Permutation by patient",
            "kappa",
            kappa_permutation(truth.labels, first, second, truth.patient, permutations=permutations, seed=seed),
        ),
    )


def _bootstrap_test(draws: Draws, one: str, other: str) -> float | None:
    if not all("auroc" in draws.replicates.get(name, ()) for name in (one, other)):
        return None
    values = (draws.estimate, draws.replicates)
    difference, replicates = (kind[other]["auroc"] - kind[one]["auroc"] for kind in values)
    return bootstrap_p(float(difference), replicates)


def bootstrap_p(difference: float, replicates: np.ndarray) -> float | None:
    """Two-sided p-value that a difference is zero, from its bootstrap `replicates` (R,).

    Under the null hypothesis the difference strays around zero as the replicates do around it (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 16). None where it is undefined or more than 5 % of
    the replicates are.
    """
    defined = replicates[np.isfinite(replicates)]
    if not np.isfinite(difference) or len(defined) < intervals.DEFINED * len(replicates):
        return None
    as_extreme = int((np.abs(defined - difference) >= abs(difference) - 1e-12).sum())
    return (1 + as_extreme) / (1 + len(defined))


def _corrected(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    families = [holm([pair.tests[k].p for pair in pairs]) for k in range(len(pairs[0].tests))]
    return tuple(
        replace(
            pair,
            tests=tuple(replace(test, adjusted=families[k][i]) for k, test in enumerate(pair.tests)),
        )
        for i, pair in enumerate(pairs)
    )


def delong_test(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> float | None:
    """Two-sided p-value that two scores (n,) on the same cases have one AUROC (DeLong et al., 1988).

    One where the scores rank alike; None where a class has fewer than two cases.
    """
    area, covariance = delong(labels, np.stack([one, other]))
    if not np.isfinite(covariance).all():
        return None
    difference = float(area[0] - area[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-18:
        return 1.0 if abs(difference) < 1e-12 else None
    return math.erfc(abs(difference) / math.sqrt(2 * variance))


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """Exact two-sided p-value that two models err equally often (McNemar 1947), from boolean (n,) arrays."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)
    ]
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def kappa_permutation(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patient: np.ndarray,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float | None:
    """Two-sided p-value that two sets of calls (n,) agree equally with the labels, by Cohen's kappa.

    Under the null hypothesis the two models are exchangeable: each permutation swaps their calls in a random half
    of the patients. None where the labels are all of one class: kappa is undefined then.
    """
    if labels.all() or not labels.any():
        return None
    cells = [_cells_by_patient(labels, calls, patient) for calls in (first, second)]
    change = cells[1] - cells[0]
    totals = [part.sum(axis=0) for part in cells]
    rng = np.random.default_rng((seed, 2))
    moved = np.concatenate(
        [
            rng.integers(0, 2, (min(500, permutations - start), len(change))).astype(np.float64) @ change
            for start in range(0, permutations, 500)
        ]
    )
    observed = _kappa(totals[1][None]) - _kappa(totals[0][None])
    permuted = _kappa(totals[1] - moved) - _kappa(totals[0] + moved)
    as_extreme = int((np.abs(permuted) >= abs(observed[0]) - 1e-12).sum())
    return (1 + as_extreme) / (1 + permutations)


def _cells_by_patient(labels: np.ndarray, calls: np.ndarray, patient: np.ndarray) -> np.ndarray:
    cells = (labels & calls, ~labels & calls, ~labels & ~calls, labels & ~calls)
    return np.stack([np.bincount(patient, cell) for cell in cells], axis=1)


def _kappa(cells: np.ndarray) -> np.ndarray:
    return threshold_metrics(*cells.T)["kappa"]


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 1979); None is not counted and stays."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = highest
    return adjusted
