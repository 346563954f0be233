"""Which cases are read, under which codes and in which order: all from one seed that only the key holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, zip_longest

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases
from mskscreen.review.protocol import CALLS, Showing

# No vowel, so that a code is no word; nothing that looks like another letter or a digit.
_LETTERS = "BCDFGHJKMNPQRSTVWXZ"
_CODE = 4
_STREAM_CASES, _STREAM_REPEATS, _STREAM_CODES, _STREAM_ORDER, _STREAM_ENCODING = range(5)


def choose(cases: Cases, count: int, seed: int, fit: Callable[[int], bool]) -> list[int]:
    """Indices of `count` cases in rising order: half of them abnormal, spread over the joint types as evenly as
    there are studies, and never two of one patient.

    `fit` says whether a case can be shown. Raises DataError where there are too few.
    """
    rng = np.random.default_rng((seed, _STREAM_CASES))
    order = rng.permutation(len(cases))
    _, first = np.unique(cases.patient[order], return_index=True)
    order = order[np.sort(first)]
    chosen: list[int] = []
    for label, wanted in ((1, count // 2), (0, count - count // 2)):
        strata = [order[(cases.labels[order] == label) & (cases.joint[order] == k)] for k in range(-1, 7)]
        strata = [strata[k] for k in rng.permutation(len(strata))]
        turns = (int(i) for turn in zip_longest(*strata) for i in turn if i is not None)
        found = list(islice((i for i in turns if fit(i)), wanted))
        if len(found) < wanted:
            if not found:
                raise DataError(
                    f"{cases.table.name}: no {CALLS[label]} study can be shown; name a table that holds some, or "
                    "the folder of their images with --images"
                )
            raise DataError(
                f"{cases.table.name}: only {len(found)} {CALLS[label]} studies of different patients can "
                f"be shown, and half of {count} cases need {wanted}; ask for at most {2 * len(found)} cases"
            )
        chosen += found
    return sorted(chosen)


def showings(cases: int, phases: Sequence[str], repeats: int, seed: int) -> dict[str, Showing]:
    """Codes for every case in every phase, and again for `repeats` of the cases, the same ones in each phase."""
    again = np.random.default_rng((seed, _STREAM_REPEATS)).permutation(cases)[:repeats].tolist()
    shown = [
        Showing(case, phase, repeat)
        for phase in phases
        for repeat, chosen in ((False, range(cases)), (True, again))
        for case in chosen
    ]
    rng = np.random.default_rng((seed, _STREAM_CODES))
    numbers = rng.choice(len(_LETTERS) ** _CODE, len(shown), replace=False)
    return {_code(int(number)): showing for number, showing in zip(numbers, shown, strict=True)}


def _code(number: int) -> str:
    letters = []
    for _ in range(_CODE):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)


def encoding(code: str, view: int, seed: int) -> np.random.Generator:
    """The chance by which the pictures of a view are encoded: a showing of its own for each code."""
    return np.random.default_rng((seed, _STREAM_ENCODING, view, *code.encode()))


def reading_order(shown: dict[str, Showing], phase: str, reader: int, seed: int) -> list[str]:
    """Codes of a phase in the order of one reader: a case that is shown twice comes once in each half."""
    rng = np.random.default_rng((seed, _STREAM_ORDER, reader, *phase.encode()))
    codes = sorted(code for code, showing in shown.items() if showing.phase == phase)
    second = [code for code in codes if shown[code].repeat]
    twice = {shown[code].case for code in second}
    first = [code for code in codes if code not in second and shown[code].case in twice]
    others = [code for code in codes if shown[code].case not in twice]
    others = [others[i] for i in rng.permutation(len(others))]
    half = len(others) // 2
    return [
        part[i] for part in (first + others[:half], second + others[half:]) for i in rng.permutation(len(part))
    ]
