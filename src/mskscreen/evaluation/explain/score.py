"""Maps judged by the truth, beside maps that know no image: a table of methods and measures with intervals."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation.estimates import Estimate, estimate
from mskscreen.evaluation.explain.truth import Truth, Truths
from mskscreen.evaluation.intervals import RESAMPLES, Part, draw
from mskscreen.evaluation.keys import keys
from mskscreen.evaluation.metrics import Statistic
from mskscreen.phantom.priors import hit_counts, within_reach
from mskscreen.predictions import Predictions
from mskscreen.saliency.maps import MapRecord
from mskscreen.saliency.measures import agreement, centre_prior, fixed_level, random_map

LOCATION = "location prior"
REFERENCES = ("centre prior", LOCATION, "random map")
AGREEMENT = ("pointing", "iou_otsu", "iou_fixed", "pixel_ap", "energy")
GAIN = "pointing gain"
# With fewer masks than this a view takes the prior of its region, as `phantom prior` does.
_FEW = 12


@dataclass(frozen=True)
class Case:
    """One image that the classifier got right, with its truth and the maps of all methods."""

    file: str
    truth: Truth
    joint: str
    patient: str
    rows: int
    columns: int
    records: Mapping[str, MapRecord]


@dataclass
class Values:
    """Measures of every map of every case: `found[method][measure]` (n,), NaN where not measured."""

    cases: Sequence[Case]
    found: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def put(self, case: int, method: str, measures: Mapping[str, float]) -> None:
        """Note measures of one map of the case with this number."""
        for name, value in measures.items():
            line = self.found.setdefault(method, {})
            line.setdefault(name, np.full(len(self.cases), np.nan))[case] = value


@dataclass(frozen=True)
class Row:
    """Measures of one method on one part of the cases."""

    part: str
    method: str
    cases: int
    passes: float
    measures: Mapping[str, Estimate]


def right_cases(table: Predictions, records: Iterable[MapRecord], truths: Truths) -> list[Case]:
    """Images with a visible abnormality, and maps, that the classifier called what they are.

    For a map of abnormality that is an image called abnormal, for one of a joint an image of that joint. Raises
    DataError where no image is left, or maps of several classes are mixed.
    """
    rows = {keys(row.file, row.study)[0]: row for row in table.images}
    maps: dict[str, dict[str, MapRecord]] = {}
    for record in records:
        maps.setdefault(record.file, {})[record.method] = record
    if len({record.of == "abnormal" for found in maps.values() for record in found.values()}) > 1:
        raise DataError("the folder holds maps of both heads; score them from a folder each")
    cases = []
    for file, found in maps.items():
        row, truth = rows.get(keys(file, file)[0]), truths.get(file)
        usable = {method: record for method, record in found.items() if record.map}
        if row is None or truth is None or not usable:
            continue
        one = next(iter(usable.values()))
        right = row.abnormal if one.of == "abnormal" else row.joint == (truth.joint or row.joint) == one.of
        if right and one.rows and one.columns:
            joint = truth.joint or row.joint or "unknown"
            patient = truth.patient or row.patient or row.study
            cases.append(Case(file, truth, joint, patient, one.rows, one.columns, usable))
    if not cases:
        raise DataError(
            "no image has a prediction that is right, a map and a visible truth; are the three of the same images?"
        )
    return cases


def measure(cases: Sequence[Case], folder: Path, level: float | None = None) -> Values:
    """Agreement of all maps and of the three references with the truth; `level` as `agreement` takes it."""
    values = Values(cases)
    priors = location_priors(cases)
    for number, case in enumerate(cases):
        mask = case.truth.mask(case.rows, case.columns)
        if not mask.any():
            continue
        shown = {method: record.values(folder) for method, record in case.records.items()}
        for method, found in (shown | references(case, priors[number])).items():
            values.put(number, method, agreement(found, mask, level))
    if not values.found:
        raise DataError("no mask of these images marks a pixel; is the truth of the same images?")
    _gain(values)
    return values


def references(case: Case, prior: np.ndarray) -> dict[str, np.ndarray]:
    """The maps that know no image, by name; the random one is seeded by the file's name."""
    seed = zlib.crc32(case.file.encode("utf-8", "surrogateescape"))
    maps = (centre_prior(48, 48), prior, random_map(seed))
    return dict(zip(REFERENCES, maps, strict=True))


def location_priors(cases: Sequence[Case]) -> list[np.ndarray]:
    """For each case how many masks of other patients, of its region and view, each place hits: (48, 48).

    Patients are dealt to two halves, and each case gets the prior of the half it is not in.
    """
    targets = np.stack([within_reach(case.truth.mask(case.rows, case.columns)) for case in cases])
    half = _numbers([case.patient for case in cases]) % 2
    joint = np.array([case.joint for case in cases])
    view = np.array([f"{case.joint}/{case.truth.view}" for case in cases])
    found = []
    for number in range(len(cases)):
        others = half != half[number]
        same_view, same_joint = others & (view == view[number]), others & (joint == joint[number])
        chosen = same_view if same_view.sum() >= _FEW else same_joint if same_joint.any() else others
        found.append(hit_counts(targets[chosen]) if chosen.any() else centre_prior(48, 48).astype(np.float64))
    return found


def development_level(cases: Sequence[Case], folder: Path) -> float:
    """The fixed threshold of IoU, as a share of the maximum, that fits the default method on development maps."""
    pairs = ((_first(case).values(folder), case.truth.mask(case.rows, case.columns)) for case in cases)
    return fixed_level((values, mask) for values, mask in pairs if mask.any())


def table(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Row]:
    """Means with intervals over patients: of all cases, of each kind and of each joint."""
    patients = _numbers([case.patient for case in values.cases])
    parts = {name: Part(rows, _means(values, rows)) for name, rows in _parts(values.cases)}
    draws = draw(parts, patients, resamples=resamples, seed=seed)
    rows = []
    for name, part in parts.items():
        again, left_out = draws.replicates.get(name), draws.jackknife.get(name)
        for method, measured in values.found.items():
            found = {}
            for measure_name in measured:
                key = f"{method}/{measure_name}"
                found[measure_name] = estimate(
                    draws.estimate[name][key],
                    again[key] if again else None,
                    left_out[key] if left_out else None,
                    "not measured",
                )
            passes = [
                values.cases[i].records[method].passes for i in part.rows if method in values.cases[i].records
            ]
            rows.append(Row(name, method, len(part.rows), float(np.mean(passes)) if passes else 0.0, found))
    return rows


def _gain(values: Values) -> None:
    """How much more often a map points right than the best place without an image."""
    prior = values.found[LOCATION]["pointing"]
    for method, measured in values.found.items():
        if method not in REFERENCES:
            measured[GAIN] = measured["pointing"] - prior


def _parts(cases: Sequence[Case]) -> Iterator[tuple[str, np.ndarray]]:
    yield "all", np.arange(len(cases))
    for what in ("kind", "joint"):
        names = [case.truth.kind if what == "kind" else case.joint for case in cases]
        for name in sorted({name for name in names if name}):
            yield f"{what}: {name}", np.flatnonzero([other == name for other in names])


def _means(values: Values, rows: np.ndarray) -> Statistic:
    """Weighted mean of every measure over the cases in which it was taken."""
    columns = {
        f"{method}/{name}": column[rows]
        for method, measured in values.found.items()
        for name, column in measured.items()
    }

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, column in columns.items():
                known = np.isfinite(column)
                found[name] = weights[:, known] @ column[known] / weights[:, known].sum(axis=1)
        return found

    return statistic


def _numbers(names: Sequence[str]) -> np.ndarray:
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names])


def _first(case: Case) -> MapRecord:
    return case.records.get("hirescam") or next(iter(case.records.values()))
