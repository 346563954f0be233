"""Cases: the rows that are judged, at the level of the study or of the image, with their truth and their flow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation.keys import file_name, keys, numbered, same_end
from mskscreen.evaluation.labels import Labels
from mskscreen.evaluation.table import Table
from mskscreen.mura_path import mura_path

Level = Literal["study", "image"]
# Beside the columns of the labels, which may well have one of that name.
VIEW_COUNT = "view count"
SEVERAL = "several"
_LISTED = 10


class Step(NamedTuple):
    """One line of the data flow."""

    what: str
    images: int | None
    studies: int


@dataclass(frozen=True)
class Cases:
    """Scored and labelled cases (n,) of one table.

    `keys` are unique; `p` is NaN where the table is silent on abnormality; `patient` numbers the patient of each
    case from 0 without gaps, `patients` names them; `joint` is -1 where the truth is unknown;
    `rows[offsets[i]:offsets[i + 1]]` are the table's rows of case i.
    """

    level: Level
    table: Table
    keys: np.ndarray
    labels: np.ndarray
    p: np.ndarray
    joint: np.ndarray
    p_joint: np.ndarray
    patient: np.ndarray
    patients: Sequence[str]
    columns: Mapping[str, np.ndarray]
    rows: np.ndarray
    offsets: np.ndarray
    flow: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def group(self) -> np.ndarray:
        """Index of the case of each of `rows`."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def first_rows(self) -> np.ndarray:
        """Row of the table, from 1, where each case begins: messages give it, since a key names the patient."""
        return self.rows[self.offsets[:-1]] + 1

    def select(self, index: np.ndarray) -> Cases:
        """The cases at `index`, in that order, with their patients numbered anew."""
        used, patient = np.unique(self.patient[index], return_inverse=True)
        spans = [self.rows[self.offsets[i] : self.offsets[i + 1]] for i in index]
        return replace(
            self,
            **{name: getattr(self, name)[index] for name in ("keys", "labels", "p", "joint", "p_joint")},
            patient=patient,
            patients=[self.patients[k] for k in used],
            columns={name: values[index] for name, values in self.columns.items()},
            rows=np.concatenate(spans) if spans else self.rows[:0],
            offsets=np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.intp),
        )


def listed(rows: Iterable[int]) -> str:
    """Rows of a table as a message gives them: the lowest ten."""
    found = sorted(map(int, rows))
    return f"rows {', '.join(map(str, found[:_LISTED]))}" + (", ..." if len(found) > _LISTED else "")


@dataclass(frozen=True)
class Joined:
    """Predictions and truth side by side.

    Each row of the table has its keys and, in `truth`, its row of the labels, or -1; `label_studies` are the keys
    of the labels' studies and `study_labels` their labels.
    """

    table: Table
    labels: Labels
    image_keys: Sequence[str]
    study_keys: Sequence[str]
    truth: np.ndarray
    label_studies: Sequence[str]
    study_labels: Mapping[str, float]
    flow: tuple[Step, ...]
    notes: tuple[str, ...]

    def cases(self, level: Level = "study") -> Cases:
        """The images that are scored and labelled, or their studies.

        A study is abnormal where any labelled image of it is; its scores are the means over its scored images, as
        in `predictions.studies`. The patient is that of the labels, else of the table, else of the MURA path, else
        the study is a patient of its own.
        """
        used = np.flatnonzero(_usable(self.table, self.labels, self.truth))
        names = self.study_keys if level == "study" else self.image_keys
        codes, keys = numbered([names[i] for i in used.tolist()])
        order = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(keys)))])
        rows = used[order]
        first = rows[offsets[:-1]]
        source = self.truth[first]
        patient, patients = numbered([self._patient(i) for i in first.tolist()])
        if level == "study":
            # The labels may name no studies, or other ones than the table does.
            each = [self.study_labels[self.label_studies[row]] for row in self.truth[rows].tolist()]
            labels = np.maximum.reduceat(each, offsets[:-1])
        else:
            labels = self.labels.label[source]
        return Cases(
            level=level,
            table=self.table,
            keys=np.array(keys, object),
            labels=labels > 0,
            p=means(self.table.p_abnormal[rows, None], offsets)[:, 0],
            joint=self.labels.joint[source],
            p_joint=means(self.table.p_joint[rows], offsets),
            patient=patient,
            patients=patients,
            columns=self._columns(self.truth[rows], offsets[:-1]) | {VIEW_COUNT: self._views(used, first)},
            rows=rows,
            offsets=offsets,
            flow=self.flow,
            notes=self.notes,
        )

    def _patient(self, row: int) -> str:
        study = self.study_keys[row]
        found = mura_path(study)
        named = self.labels.patient[self.truth[row]] or self.table.patient[row]
        return named or (found.patient if found else study)

    def _columns(self, source: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        """Every column by case, from the labels of its images; a case whose images differ is "several"."""
        found = {}
        for name, values in self.labels.columns.items():
            texts = (values[row] for row in source.tolist())
            codes, names = numbered("unknown" if text is None else text for text in texts)
            alike = np.minimum.reduceat(codes, first) == np.maximum.reduceat(codes, first)
            found[name] = np.where(alike, np.array(names, object)[codes[first]], SEVERAL)
        return found

    def _views(self, used: np.ndarray, first: np.ndarray) -> np.ndarray:
        views = Counter(self.study_keys[i] for i in used.tolist())
        return np.array([str(views[self.study_keys[i]]) for i in first.tolist()], object)


def join(table: Table, labels: Labels) -> Joined:
    """Find the truth of each row of the table: by its image, by the end of its path, else by its study.

    An image that the labels do not name has no truth where they name others of its study.
    Raises DataError where a file occurs twice in the table, an image is labelled twice and differently, or nothing
    can be joined.
    """
    image_keys, study_keys = _keys(table)
    truth, names = _match(table, image_keys, study_keys, labels)
    if not _usable(table, labels, truth).any():
        raise DataError(
            f"{table.name}: none of its {len(table)} images is both scored and labelled by {labels.name}; "
            "compare the columns study and file of both"
        )
    study_labels = _study_labels(labels, names)
    return Joined(
        table=table,
        labels=labels,
        image_keys=image_keys,
        study_keys=study_keys,
        truth=truth,
        label_studies=names,
        study_labels=study_labels,
        flow=_flow(table, study_keys, labels, names, truth),
        notes=_notes(labels, study_keys, truth, names, study_labels),
    )


def _usable(table: Table, labels: Labels, truth: np.ndarray) -> np.ndarray:
    """Rows whose score is a probability and whose label is known."""
    return _scored(table) & _labelled(labels, truth)


def _scored(table: Table) -> np.ndarray:
    p = table.p_joint.max(axis=1) if table.silent else table.p_abnormal
    return (p >= 0) & (p <= 1)


def _labelled(labels: Labels, truth: np.ndarray) -> np.ndarray:
    return (truth >= 0) & np.isfinite(labels.label[truth])


def _keys(table: Table) -> tuple[list[str], list[str]]:
    """Image and study key of each row; rows of one study share one string, which matters with a million rows."""
    shared: dict[str, str] = {}
    image_keys, study_keys = [], []
    for file, study in zip(table.file, table.study, strict=True):
        image, name = keys(file, study)
        image_keys.append(str(image))
        study_keys.append(shared.setdefault(name, name))
    return image_keys, study_keys


def _match(
    table: Table, image_keys: Sequence[str], study_keys: Sequence[str], labels: Labels
) -> tuple[np.ndarray, list[str]]:
    """Row of the labels for each row of the table, -1 where there is none, and the study key of each label."""
    position = {key: i for i, key in enumerate(image_keys)}
    if len(position) < len(image_keys):
        twice = Counter(image_keys).most_common(1)[0][0]
        same = listed(row for row, key in enumerate(image_keys, 1) if key == twice)
        raise DataError(f"{table.name}: an image occurs twice ({same}); keep one row of each image")
    truth = np.full(len(image_keys), -1)
    shared = {name: name for name in study_keys}
    names: list[str] = []
    by_study: dict[str, int] = {}
    others: dict[str, list[tuple[str, int]]] = {}
    for row, (file, study) in enumerate(zip(labels.image, labels.study, strict=True)):
        image, name = keys(file, study)
        names.append(shared.setdefault(name, name))
        by_study.setdefault(names[-1], row)
        if image is None:
            continue
        at = position.get(image)
        if at is None:
            others.setdefault(file_name(image), []).append((image, row))
        elif truth[at] < 0:
            truth[at] = row
        elif not np.array_equal(labels.label[truth[at]], labels.label[row], equal_nan=True):
            raise DataError(f"{labels.name}: rows {truth[at] + 1} and {row + 1} label the same image differently")
    unknown = np.flatnonzero(truth < 0).tolist()
    for i in unknown:
        ends = [row for key, row in others.get(file_name(image_keys[i]), ()) if same_end(key, image_keys[i])]
        # Files of several studies may have one name.
        if study_keys[i] in by_study:
            ends = [row for row in ends if names[row] == study_keys[i]]
        truth[i] = ends[0] if len(ends) == 1 else -1
    named = {names[row] for row in truth[truth >= 0].tolist()}
    for i in unknown:
        row = by_study.get(study_keys[i], -1)
        if truth[i] < 0 and (labels.image[row] is None or study_keys[i] not in named):
            truth[i] = row
    return truth, names


def _study_labels(labels: Labels, names: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for study, label in zip(names, labels.label.tolist(), strict=True):
        if not math.isnan(label):
            found[study] = max(found.get(study, 0.0), label)
    return found


def means(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mean of each group of rows, exactly rounded, so that the order of the views does not matter."""
    if len(offsets) - 1 == len(values):
        return values
    bounds = list(pairwise(offsets.tolist()))
    columns = (
        [math.fsum(column[a:b]) / (b - a) for a, b in bounds] for column in map(np.ndarray.tolist, values.T)
    )
    return np.stack([np.array(column) for column in columns], axis=1)


def _flow(
    table: Table, study_keys: Sequence[str], labels: Labels, names: Sequence[str], truth: np.ndarray
) -> tuple[Step, ...]:
    def step(what: str, rows: np.ndarray) -> Step:
        return Step(what, int(rows.sum()), len({study_keys[i] for i in np.flatnonzero(rows).tolist()}))

    scored, labelled = _scored(table), _labelled(labels, truth)
    matched = truth[truth >= 0].tolist()
    predicted = {names[row] for row in matched}
    splits = labels.columns.get("split")
    present = {splits[row] for row in matched} if splits else set()
    expected = {name for row, name in enumerate(names) if not splits or splits[row] in present}
    return (
        step("in the predictions table", np.ones(len(table), bool)),
        step("left out: not scored, or the score is not a probability", ~scored),
        step("left out: scored, but without a label", scored & ~labelled),
        step("evaluated", scored & labelled),
        Step("labelled in the same split, but not predicted", None, len(expected - predicted)),
    )


def _notes(
    labels: Labels,
    study_keys: Sequence[str],
    truth: np.ndarray,
    names: Sequence[str],
    study_labels: Mapping[str, float],
) -> tuple[str, ...]:
    some_normal = {name for name, label in zip(names, labels.label.tolist(), strict=True) if label == 0}
    known = np.flatnonzero(_labelled(labels, truth))
    said = [(study_keys[i], names[row]) for i, row in zip(known.tolist(), truth[known].tolist(), strict=True)]
    normal = {study for study, name in said if name in some_normal}
    mixed = len(normal & {study for study, name in said if study_labels[name] > 0})
    if not mixed:
        return ()
    return (f"{mixed} studies hold images of both labels; a study is abnormal where any of its images is",)
