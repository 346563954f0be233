"""The statistics of a reading study, from the answers of its readers and the key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.evaluation.agreement import UNRATED, CrossedStatistic, crossed, rater_statistic
from mskscreen.evaluation.estimates import Estimate
from mskscreen.evaluation.metrics import ranking_statistic
from mskscreen.review.forms import Answer
from mskscreen.review.protocol import AIDED, CALLS, JUDGEMENTS, UNAIDED, Key
from mskscreen.review.readings import Readings, readings

ALL, MODEL = "all readers", "model"
_NOTHING = "no such case was read"


@dataclass(frozen=True)
class Row:
    """Figures of one reader, or of all, in one phase or of the difference between both."""

    who: str
    of: str
    cases: int
    figures: Mapping[str, Estimate]


@dataclass(frozen=True)
class Returned:
    """How many showings of a phase a reader called normal or abnormal, of those in the form."""

    reader: str
    phase: str
    answered: int
    expected: int


@dataclass(frozen=True)
class Scores:
    """All figures of a study; `within` is of cases shown twice, `maps` holds the share of each judgement.

    `mapless` counts the judgements of a map where none was shown, which are left out.
    """

    returned: tuple[Returned, ...]
    accuracy: tuple[Row, ...]
    between: tuple[Row, ...]
    within: tuple[Row, ...]
    maps: tuple[Row, ...]
    pointing: tuple[Row, ...]
    mapless: int


def score(key: Key, answers: Sequence[Answer], *, resamples: int, seed: int) -> Scores:
    """Every figure with the interval of a bootstrap over readers and cases (over cases alone for one reader)."""
    answered = {answer.reader for answer in answers}
    readers = [reader for reader in key.protocol["readers"] if reader in answered]
    phases = {phase: readings(key, answers, readers, phase) for phase in (UNAIDED, AIDED)}
    truth = np.array([case.label for case in key.cases]) == 1
    settings = {"resamples": resamples, "seed": seed}
    aided = phases[AIDED]
    judged = [("map", aided.judgement, aided.judgement_again, len(JUDGEMENTS))]
    called = [(f"call, {phase}", read.call, read.again, len(CALLS)) for phase, read in phases.items()]
    questions = [question for question in (*called, *judged) if (question[1] != UNRATED).any()]
    return Scores(
        returned=_returned(key, answers),
        accuracy=_accuracy(key, phases, truth, readers, settings),
        between=tuple(
            Row(ALL, name, _read_by(first, 2), _between(first, categories, settings))
            for name, first, _, categories in questions
        ),
        within=tuple(
            row
            for name, first, second, categories in questions
            for row in _within(name, first, second, categories, readers, settings)
        ),
        maps=_judgements(key, aided.judgement, truth, settings),
        pointing=tuple(row for phase, read in phases.items() for row in _pointing(phase, read, readers, settings)),
        mapless=sum(answer.judgement is not None and not _shows_map(key, answer) for answer in answers),
    )


def _shows_map(key: Key, answer: Answer) -> bool:
    showing = key.showings[answer.code]
    return showing.phase == AIDED and key.cases[showing.case].mapped


def _returned(key: Key, answers: Sequence[Answer]) -> tuple[Returned, ...]:
    called = Counter((a.reader, key.showings[a.code].phase) for a in answers if a.call is not None)
    asked = Counter(showing.phase for showing in key.showings.values())
    return tuple(
        Returned(reader, phase, called[reader, phase], asked[phase])
        for reader in key.protocol["readers"]
        for phase in key.protocol["phases"]
    )


def _each_and_all(readers: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The columns of each reader and, where there are several, of all."""
    each = [(who, [k]) for k, who in enumerate(readers)]
    return [*each, (ALL, list(range(len(readers))))] if len(readers) > 1 else each


def _read_by(ratings: np.ndarray, least: int) -> int:
    return int(((ratings != UNRATED).sum(axis=1) >= least).sum())


def _accuracy(
    key: Key,
    phases: Mapping[str, Readings],
    truth: np.ndarray,
    readers: Sequence[str],
    settings: Mapping[str, int],
) -> tuple[Row, ...]:
    rows = []
    p = np.array([case.p_abnormal for case in key.cases])
    statistic = _accuracy_statistic(truth, (p >= key.threshold).astype(int)[:, None], p[:, None])
    rows.append(Row(MODEL, "alone", len(truth), crossed(statistic, len(truth), 1, why=_NOTHING, **settings)))
    for who, chosen in _each_and_all(readers):
        found = {}
        for phase, read in phases.items():
            call, confidence = read.call[:, chosen], read.confidence[:, chosen]
            if (call == UNRATED).all():
                continue
            certain = np.where(
                (call == UNRATED) | (confidence == UNRATED), np.nan, (2 * call - 1.0) * (confidence + 1)
            )
            found[phase] = call, certain
            statistic = _accuracy_statistic(truth, call, certain)
            figures = crossed(statistic, len(truth), len(chosen), why=_NOTHING, **settings)
            rows.append(Row(who, phase, _read_by(call, 1), figures))
        if len(found) == 2:
            paired = _paired(found)
            cases = _read_by(paired[AIDED][0], 1)
            statistic = _difference({name: _accuracy_statistic(truth, *given) for name, given in paired.items()})
            figures = crossed(statistic, len(truth), len(chosen), why=_NOTHING, **settings)
            rows.append(Row(who, f"{AIDED} - {UNAIDED}", cases, figures))
    return tuple(rows)


def _paired(phases: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Calls and signed confidences of both phases, without what a reader answered in one phase alone."""
    called = np.logical_and(*(call != UNRATED for call, _ in phases.values()))
    ranked = np.logical_and(*(np.isfinite(certain) for _, certain in phases.values()))
    return {
        phase: (np.where(called, call, UNRATED), np.where(ranked, certain, np.nan))
        for phase, (call, certain) in phases.items()
    }


def _accuracy_statistic(truth: np.ndarray, calls: np.ndarray, scores: np.ndarray) -> CrossedStatistic:
    """Sensitivity, specificity and AUROC, each the mean over the readers; `calls`, `scores` (cases, readers)."""
    rankings = []
    for column in scores.T:
        rows = np.flatnonzero(np.isfinite(column))
        rankings.append((rows, ranking_statistic(truth[rows], column[rows], average=False)))

    def statistic(cases: np.ndarray, readers: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, wanted, rows in (("sensitivity", 1, truth), ("specificity", 0, ~truth)):
                weights = cases[:, rows]
                right = weights @ (calls[rows] == wanted).astype(float)
                found[name] = right / (weights @ (calls[rows] != UNRATED).astype(float))
            found["auroc"] = np.stack([ranking(cases[:, rows])["auroc"] for rows, ranking in rankings], axis=1)
        return {name: _weighted_mean(values, readers) for name, values in found.items()}

    return statistic


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is defined, (R,)."""
    weights = weights * np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights * np.nan_to_num(values)).sum(axis=1) / weights.sum(axis=1)


def _difference(phases: Mapping[str, CrossedStatistic]) -> CrossedStatistic:
    def statistic(cases: np.ndarray, readers: np.ndarray) -> dict[str, np.ndarray]:
        with_aid, without = (phases[name](cases, readers) for name in (AIDED, UNAIDED))
        return {name: with_aid[name] - without[name] for name in with_aid}

    return statistic


def _between(ratings: np.ndarray, categories: int, settings: Mapping[str, int]) -> dict[str, Estimate]:
    why = "needs two readers of one case, and two classes among their answers"
    statistic = rater_statistic(ratings, categories)
    return crossed(statistic, *ratings.shape, least=2, why=why, **settings)


def _within(
    name: str,
    first: np.ndarray,
    second: np.ndarray,
    categories: int,
    readers: Sequence[str],
    settings: Mapping[str, int],
) -> list[Row]:
    """Each reader against itself on the cases that it read twice, and the mean of these over all readers."""
    why = "needs cases read twice, and two classes among the answers"
    twice = (first != UNRATED) & (second != UNRATED)
    rows = twice.any(axis=1)
    if not rows.any():
        return []
    # What was read once says nothing of chance on the cases of which agreement is.
    twice, first, second = (values[rows] for values in (twice, first, second))
    both = np.where(twice[..., None], np.stack([first, second], axis=2), UNRATED)
    statistics = [rater_statistic(both[:, k], categories) for k in range(len(readers))]

    def of(chosen: Sequence[int]) -> CrossedStatistic:
        def statistic(cases: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
            found = [statistics[k](cases, np.ones((len(cases), 2))) for k in chosen]
            return {
                figure: _weighted_mean(np.stack([f[figure] for f in found], axis=1), weights)
                for figure in ("agreement", "cohen", "ac1")
            }

        return statistic

    return [
        Row(
            who,
            name,
            int(twice[:, chosen].any(axis=1).sum()),
            crossed(of(chosen), len(first), len(chosen), why=why, **settings),
        )
        for who, chosen in _each_and_all(readers)
    ]


def _judgements(
    key: Key, judgement: np.ndarray, truth: np.ndarray, settings: Mapping[str, int]
) -> tuple[Row, ...]:
    """Shares of the judgements, mean over readers: of all cases, by the model's call and by the truth."""
    called = np.array([case.p_abnormal >= key.threshold for case in key.cases])
    parts = {"map": np.full(len(truth), True)}
    parts |= {f"map, called {CALLS[k]}": called == k for k in (1, 0)}
    parts |= {f"map, truly {CALLS[k]}": truth == k for k in (1, 0)}
    rows = []
    for name, part in parts.items():
        chosen = np.where(part[:, None], judgement, UNRATED)
        if (chosen != UNRATED).any():
            said = {answer: chosen == k for k, answer in enumerate(JUDGEMENTS)}
            figures = _shares(said, chosen != UNRATED, settings)
            rows.append(Row(ALL, name, _read_by(chosen, 1), figures))
    return tuple(rows)


def _pointing(phase: str, read: Readings, readers: Sequence[str], settings: Mapping[str, int]) -> list[Row]:
    """The pointing game of each reader's boxes, and its mean over readers."""
    rows = []
    for who, chosen in _each_and_all(readers):
        boxed = read.boxed[:, chosen]
        if boxed.any():
            points = {"map": read.hits[:, chosen], "random point": read.chance[:, chosen]}
            cases = int(boxed.any(axis=1).sum())
            rows.append(Row(who, f"boxes, {phase}", cases, _shares(points, boxed, settings)))
    return rows


def _shares(
    parts: Mapping[str, np.ndarray], whole: np.ndarray, settings: Mapping[str, int]
) -> dict[str, Estimate]:
    """Each part (cases, readers) as a share of the whole, mean over the readers."""

    def statistic(cases: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            total = cases @ whole.astype(float)
            return {
                name: _weighted_mean(cases @ part.astype(float) / total, weights) for name, part in parts.items()
            }

    return crossed(statistic, *whole.shape, why=_NOTHING, **settings)
