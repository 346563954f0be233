"""Maps joined with predictions and truth: the images that are judged, and what became of the others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.errors import DataError
from mskscreen.evaluation.explain.truth import Truth, Truths
from mskscreen.evaluation.keys import Paths
from mskscreen.inference.grouping import group
from mskscreen.predictions import Prediction, Predictions
from mskscreen.saliency.maps import MapRecord
from mskscreen.saliency.target import JOINT

_ABNORMAL = "abnormal"
_SCORED, _NO_MAP = "scored", "without a map"
_OUTCOMES = (
    *(_SCORED, "missed by the classifier", "without truth", "without a prediction", _NO_MAP),
    *("whose mask is empty", "called normal"),
)
# Of an image whose truth nobody told.
UNKNOWN = Truth(lambda rows, columns: np.zeros((rows, columns), bool))
UNTOLD = Truths({}, other=UNKNOWN)


@dataclass(frozen=True)
class Case:
    """One image with its truth and the maps of all methods; none where the truth alone is of use.

    Where `patient_known` is false, `patient` is the study instead, or the image.
    """

    file: str
    truth: Truth
    joint: str
    patient: str
    rows: int
    columns: int
    records: Mapping[str, MapRecord]
    patient_known: bool = True


@dataclass(frozen=True)
class Joined:
    """The `cases` to judge: images with a visible abnormality, and maps, that the classifier called what they are.

    `others` are all other images whose truth is known, with their size: they tell where abnormalities lie.
    `outcomes` counts the images with records by what became of them, `unused` the truths of images without; it is
    None where truths are `UNTOLD`, and then `cases` are all that were called abnormal. `model` is what the
    predictions say of the model that made them, `unmapped` how many of their images were called abnormal and have
    no record.
    """

    cases: Sequence[Case]
    others: Sequence[Case]
    outcomes: Mapping[str, int]
    unused: int | None
    model: Mapping[str, Any]
    unmapped: int = 0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in self.outcomes.items() if count)
        rest = "no truth" if self.unused is None else f"{self.unused} truths of other images"
        if self.unused is None and self.unmapped:
            rest = f"{rest}; {self.unmapped} more images called abnormal have no map"
        return f"{sum(self.outcomes.values())} images: {counts}; {rest}"

    def only(self, cases: Sequence[Case]) -> Joined:
        """With those of its `cases` alone whose maps could be read. Raises DataError where there are none."""
        lost = len(self.cases) - len(cases)
        counts = {_SCORED: self.outcomes[_SCORED] - lost, _NO_MAP: self.outcomes[_NO_MAP] + lost}
        found = replace(self, cases=cases, outcomes={**self.outcomes, **counts})
        if not cases:
            raise DataError(
                f"no image has a prediction that is right, a map and a visible truth ({found}); "
                "name three that are of the same images"
            )
        return found


def right_cases(
    table: Predictions,
    records: Iterable[MapRecord],
    truths: Truths,
    of: str | None = None,
    contract: str | None = None,
) -> Joined:
    """Join maps with predictions and truth; `of` is the head that they speak of where there are both.

    For maps of `abnormal` an image called abnormal is right, for those of `joint` an image of that joint. Where
    truths are `UNTOLD` every image called abnormal is a case, or every one with a map of its joint. Raises
    DataError where no image is left, a truth fits two images, or predictions, maps and `contract` (the digest of
    a model) are of several models or the maps of both heads.
    """
    records = list(records)
    _refuse_mixed(table, records, contract)
    rows = {row.file: row for row in table.images}
    paths = Paths(rows)
    head, maps = _one_head(records, paths, of)
    outcomes = dict.fromkeys(_OUTCOMES, 0)
    cases: list[Case] = []
    seen: dict[str, MapRecord] = {}
    for image, found in maps.items():
        usable = {method: record for method, record in found.items() if record.map and record.rows}
        record = next(iter((usable or found).values()))
        name, row = truths.find(record.file), rows.get(image)
        if name is not None and seen.setdefault(name, record) is not record:
            number = [other for other, _ in truths.items()].index(name) + 1
            both = " and ".join(_said(records.index(each) + 1, each) for each in (seen[name], record))
            raise DataError(f"truth {number} ({PurePath(name).name}) fits {both}; name more of its path")
        truth = truths.get(record.file)
        outcome = _outcome(head, row, truth, record)
        size = _size(record)
        if outcome == _SCORED and truth and size:
            cases.append(_case(record.file, truth, row, size, usable))
        outcomes[outcome] += 1
    left = {truth.mask for _, truth in truths.items()} - {truths[name].mask for name in seen}
    unused = None if truths is UNTOLD else len(left)
    unmapped = sum(bool(row.abnormal) for image, row in rows.items() if image not in maps)
    return Joined(cases, _others(table, truths, cases, seen), outcomes, unused, table.model, unmapped).only(cases)


def refuse_shared(judged: Joined, development: Joined, *, patients: bool) -> None:
    """Raise DataError where an image or, with `patients`, a patient is on both sides.

    A level chosen on what it is judged by looks better than it is. Phantom sets number their patients alike, so
    that between two of them patients tell nothing.
    """
    sides = judged.cases, development.cases
    files = [{os.path.realpath(case.file) for case in cases} for cases in sides]
    people = [{case.patient for case in cases if case.patient_known and patients} for cases in sides]
    for what, (here, there) in (("images", files), ("patients", people)):
        if shared := here & there:
            raise DataError(
                f"{len(shared)} {what} are judged and among the development maps too; choose the level on others"
            )


def resampled(cases: Sequence[Case]) -> str:
    """What a bootstrap of the cases draws, in words: patients, as far as they are known."""
    unknown = [case.patient for case in cases if not case.patient_known]
    if not unknown:
        return "patients"
    units = "images" if len(set(unknown)) == len(unknown) else "studies"
    if len(unknown) == len(cases):
        return f"{units}, patients unknown"
    return f"patients, and {units} for the {len(unknown)} images whose patient is unknown"


def _refuse_mixed(table: Predictions, records: Sequence[MapRecord], contract: str | None) -> None:
    bearers = [("the model", contract), ("the predictions", table.model.get("contract"))]
    bearers += [(_said(number, record), record.model.get("contract")) for number, record in enumerate(records, 1)]
    known = [(name, digest) for name, digest in bearers if digest]
    for name, digest in known:
        if digest != known[0][1]:
            raise DataError(
                f"{name} is of another model than {known[0][0]}; make predictions and maps with one model"
            )


def _said(number: int, record: MapRecord) -> str:
    """A map as messages name it: its folders may tell the patient and the label."""
    return f"map {number} ({PurePath(record.file).name})"


def _one_head(
    records: Iterable[MapRecord], paths: Paths, of: str | None
) -> tuple[str, dict[str, dict[str, MapRecord]]]:
    """The head that the maps speak of, and the records of each image by method.

    Only maps of `abnormal` and of the joint that was predicted count: of no other class a truth is told.
    """
    heads: dict[str, dict[str, dict[str, MapRecord]]] = {}
    for record in records:
        head = JOINT if record.of in JOINT_LABELS else _ABNORMAL
        if record.of in (_ABNORMAL, record.joint):
            image = paths.find(record.file) or record.file
            heads.setdefault(head, {}).setdefault(image, {})[record.method] = record
    if of is None and len(heads) > 1:
        raise DataError(f"the folder holds maps of {' and of '.join(sorted(heads))}; choose one with --of")
    head = of or next(iter(heads), _ABNORMAL)
    if head not in heads:
        raise DataError(
            f"the folder holds no maps of '{head}'; make them with: mskscreen explain FILES --of {head}"
        )
    return head, heads[head]


def _outcome(head: str, row: Prediction | None, truth: Truth | None, record: MapRecord) -> str:
    scored, missed, no_truth, no_row, no_map, empty, called_normal = _OUTCOMES
    if row is None or not row.scored:
        return no_row
    if truth is None:
        return no_truth
    right = bool(row.abnormal) if head == _ABNORMAL else row.joint == (truth.joint or row.joint) == record.of
    if not right:
        return called_normal if truth is UNKNOWN else missed
    size = _size(record)
    if not record.map or size is None:
        return no_map
    return scored if truth is UNKNOWN or truth.mask(*size).any() else empty


def _others(
    table: Predictions, truths: Truths, cases: Sequence[Case], mapped: Mapping[str, MapRecord]
) -> list[Case]:
    rows = {truths.find(row.file): row for row in table.images}
    # A phantom's PNG and DICOM file share one mask.
    known = {case.truth.mask for case in cases}
    found = []
    for name, truth in truths.items():
        size = (_size(mapped[name]) if name in mapped else None) or truth.size
        if size is not None and truth.mask not in known:
            known.add(truth.mask)
            found.append(_case(name, truth, rows.get(name), size, {}))
    return found


def _case(
    file: str,
    truth: Truth,
    row: Prediction | None,
    size: tuple[int, int],
    records: Mapping[str, MapRecord],
) -> Case:
    study, patient = group(file, None) if row is None else (row.study, row.patient)
    joint = truth.joint or (row and row.joint) or "unknown"
    known = truth.patient or patient
    return Case(file, truth, joint, known or study, *size, records, bool(known))


def _size(record: MapRecord) -> tuple[int, int] | None:
    return (record.rows, record.columns) if record.rows and record.columns else None
