"""Maps judged by the truth, beside maps that know no image: a table of methods and measures with intervals."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from mskscreen.errors import DataError
from mskscreen.evaluation.estimates import Estimate, estimate
from mskscreen.evaluation.explain.cases import Case, Joined
from mskscreen.evaluation.intervals import RESAMPLES, Draws, Part, draw
from mskscreen.evaluation.keys import numbered
from mskscreen.evaluation.metrics import Statistic
from mskscreen.phantom.priors import hit_counts, within_reach
from mskscreen.saliency.measures import agreement, centre_prior, fixed_level, overlaps, random_map

CENTRE, LOCATION, RANDOM = "centre prior", "location prior", "random map"
REFERENCES = (CENTRE, LOCATION, RANDOM)
AGREEMENT = ("pointing", "iou_otsu", "iou_fixed", "pixel_ap", "energy")
GAIN = "pointing gain"
# With fewer masks than this a view takes the prior of its region, as `phantom prior` does.
_FEW = 12


# Measures by method of one map each, of the case with this number: what a model says of them, for example.
Asked = Callable[[int, Case, Mapping[str, np.ndarray]], Mapping[str, Mapping[str, float]]]
LeftOut = Callable[[str], None]


@dataclass(frozen=True)
class Values:
    """Measures of every map of every case of `joined`: `found[method][measure]` (n,), NaN where not measured.

    `alone` counts the cases that have no location prior.
    """

    joined: Joined
    found: Mapping[str, dict[str, np.ndarray]]
    alone: int


@dataclass(frozen=True)
class Row:
    """Measures of one method on one part of the cases; `images` says on how many each measure was taken."""

    part: str
    method: str
    passes: float
    measures: Mapping[str, Estimate]
    images: Mapping[str, int]

    @property
    def cases(self) -> int:
        """Images with a map of this method."""
        return max(self.images.values(), default=0)


def measure(
    joined: Joined,
    folder: Path,
    levels: Mapping[str, float] = MappingProxyType({}),
    *,
    asked: Asked = lambda *_: {},
    left_out: LeftOut | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Values:
    """Agreement of all maps and of the three references with the truth, where it was told, and what `asked` adds.

    `levels` are the fixed levels of IoU by method, as `agreement` takes them; IoU is not taken without one. Every
    map is read once, the maps of one case at a time. `left_out` is told of maps that cannot be read; cases without
    another are left out. Raises DataError where none is left, or a map cannot be read and nobody is told.
    """
    cases: list[Case] = []
    taken: list[dict[str, dict[str, float]]] = []
    alone = 0
    for number, case, maps in _read(joined, folder, left_out):
        mask = case.truth.mask(case.rows, case.columns)
        judged = {name: agreement(values, mask, levels.get(name)) for name, values in maps.items() if mask.any()}
        more = asked(number, case, maps)
        taken.append({name: {**judged.get(name, {}), **more.get(name, {})} for name in maps})
        cases.append(case)
        alone += LOCATION not in maps
        advance(1)
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, measures in enumerate(taken):
        for method, name, value in (
            (m, name, value) for m, line in measures.items() for name, value in line.items()
        ):
            column = found.setdefault(method, {}).setdefault(name, np.full(len(cases), np.nan))
            column[number] = value
    return Values(joined.only(cases), found, alone)


def _read(
    joined: Joined, folder: Path, left_out: LeftOut | None
) -> Iterator[tuple[int, Case, dict[str, np.ndarray]]]:
    """Each case that has a map which can be read, with its number and its maps by method.

    Among these are those that know no image; the file's name seeds the random one.
    """
    for number, (case, prior) in enumerate(zip(joined.cases, location_priors(joined), strict=True)):
        maps = {}
        for method, record in case.records.items():
            try:
                maps[method] = record.values(folder)
            except DataError as error:
                if left_out is None:
                    raise
                left_out(str(error))
        if maps:
            readable = replace(case, records={method: case.records[method] for method in maps})
            maps[CENTRE] = centre_prior(48, 48)
            if prior is not None:
                maps[LOCATION] = prior
            maps[RANDOM] = random_map(zlib.crc32(case.file.encode("utf-8", "surrogateescape")))
            yield number, readable, maps


def location_priors(joined: Joined) -> list[np.ndarray | None]:
    """For each case how many masks of other patients, of its region and view, each place hits: (48, 48).

    It is learnt from all truth, judged or not; None where no other patient has any.
    """
    known = ((case, case.truth.mask(case.rows, case.columns)) for case in (*joined.cases, *joined.others))
    targets = [(case, within_reach(mask)) for case, mask in known if mask.any()]
    if not targets:
        return [None] * len(joined.cases)
    reach = np.stack([target for _, target in targets])
    patient = np.array([case.patient for case, _ in targets])
    joint = np.array([case.joint for case, _ in targets])
    view = np.array([str(case.truth.view) for case, _ in targets])
    found: list[np.ndarray | None] = []
    for case in joined.cases:
        others = patient != case.patient
        same_joint = others & (joint == case.joint)
        same_view = same_joint & (view == str(case.truth.view))
        chosen = same_view if same_view.sum() >= _FEW else same_joint if same_joint.any() else others
        found.append(hit_counts(reach[chosen]) if chosen.any() else None)
    return found


def development_levels(joined: Joined, folder: Path, left_out: LeftOut | None = None) -> dict[str, float]:
    """The fixed level of IoU of each method, as a share of the maximum, that fits its development maps.

    Maps that cannot be read are left out as by `measure`.
    """
    cases: list[Case] = []
    found: dict[str, list[list[float]]] = {}
    for _, case, maps in _read(joined, folder, left_out):
        mask = case.truth.mask(case.rows, case.columns)
        for method, evidence in maps.items():
            found.setdefault(method, []).append(overlaps(evidence, mask))
        cases.append(case)
    joined.only(cases)
    return {method: fixed_level(measured) for method, measured in found.items()}


def table(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Row]:
    """Means, with intervals over patients as far as these are known: of all cases, of each kind and joint."""
    patients, _ = numbered(case.patient for case in values.joined.cases)
    parts = {name: Part(rows, _means(values, rows)) for name, rows in _parts(values.joined.cases)}
    draws = draw(parts, patients, resamples=resamples, seed=seed)
    return [
        _row(values, name, method, part.rows, draws) for name, part in parts.items() for method in values.found
    ]


def _row(values: Values, part: str, method: str, rows: np.ndarray, draws: Draws) -> Row:
    again, left_out = draws.replicates.get(part), draws.jackknife.get(part)
    taken = {name: int(np.isfinite(column[rows]).sum()) for name, column in values.found[method].items()}
    if method not in REFERENCES and "pointing" in taken:
        taken[GAIN] = taken["pointing"]
    found = {}
    for name in taken:
        key = f"{method}/{name}"
        found[name] = estimate(
            draws.estimate[part][key],
            again[key] if again else None,
            left_out[key] if left_out else None,
            "not measured",
        )
    records = [values.joined.cases[i].records.get(method) for i in rows]
    passes = [record.passes for record in records if record]
    return Row(part, method, float(np.mean(passes)) if passes else 0.0, found, taken)


def _parts(cases: Sequence[Case]) -> Iterator[tuple[str, np.ndarray]]:
    yield "all", np.arange(len(cases))
    for what in ("kind", "joint"):
        names = [case.truth.kind if what == "kind" else case.joint for case in cases]
        for name in sorted({name for name in names if name}):
            yield f"{what}: {name}", np.flatnonzero([other == name for other in names])


def _means(values: Values, rows: np.ndarray) -> Statistic:
    """Weighted mean of every measure over the cases in which it was taken, and the gain of every method.

    The gain says how much more often a map points right than the better of the two priors on the same cases.
    """
    columns = {
        f"{method}/{name}": column[rows]
        for method, measured in values.found.items()
        for name, column in measured.items()
    }
    priors = [columns[name] for name in (f"{CENTRE}/pointing", f"{LOCATION}/pointing") if name in columns]
    methods = [method for method in values.found if method not in REFERENCES and f"{method}/pointing" in columns]

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: _mean(weights, column) for name, column in columns.items()}
        for method in methods:
            pointing = columns[f"{method}/pointing"]
            found[f"{method}/{GAIN}"] = np.fmin.reduce([_mean(weights, pointing - prior) for prior in priors])
        return found

    return statistic


def _mean(weights: np.ndarray, column: np.ndarray) -> np.ndarray:
    known = np.isfinite(column)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = weights[:, known] @ column[known] / weights[:, known].sum(axis=1)
    return found
