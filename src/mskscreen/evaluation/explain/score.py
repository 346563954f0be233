"""Maps judged by the truth, beside maps that know no image: a table of methods and measures with intervals."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

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


@dataclass
class Values:
    """Measures of every map of every case: `found[method][measure]` (n,), NaN where not measured.

    `priors` are the `location_priors` of the cases.
    """

    cases: Sequence[Case]
    priors: Sequence[np.ndarray | None]
    found: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def put(self, case: int, method: str, measures: Mapping[str, float]) -> None:
        """Note measures of one map of the case with this number."""
        for name, value in measures.items():
            line = self.found.setdefault(method, {})
            line.setdefault(name, np.full(len(self.cases), np.nan))[case] = value

    def maps(self, case: int, folder: Path) -> dict[str, np.ndarray]:
        """The maps of a case by method, and those that know no image; the file's name seeds the random one."""
        one = self.cases[case]
        found = {method: record.values(folder) for method, record in one.records.items()}
        found[CENTRE] = centre_prior(48, 48)
        if (prior := self.priors[case]) is not None:
            found[LOCATION] = prior
        return found | {RANDOM: random_map(zlib.crc32(one.file.encode("utf-8", "surrogateescape")))}


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


def measure(joined: Joined, folder: Path, levels: Mapping[str, float] = MappingProxyType({})) -> Values:
    """Agreement of all maps and of the three references with the truth, where it was told.

    `levels` are the fixed levels of IoU by method, as `agreement` takes them; IoU is not taken without one.
    """
    values = Values(joined.cases, location_priors(joined))
    for number, case in enumerate(values.cases):
        mask = case.truth.mask(case.rows, case.columns)
        if not mask.any():
            continue
        for method, found in values.maps(number, folder).items():
            values.put(number, method, agreement(found, mask, levels.get(method)))
    return values


def location_priors(joined: Joined) -> list[np.ndarray | None]:
    """For each case how many masks of other patients, of its region and view, each place hits: (48, 48).

    It is learnt from all truth, judged or not; None where no other patient has any.
    """
    known = [(case, case.truth.mask(case.rows, case.columns)) for case in (*joined.cases, *joined.others)]
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


def development_levels(joined: Joined, folder: Path) -> dict[str, float]:
    """The fixed level of IoU of each method, as a share of the maximum, that fits its development maps."""
    values = Values(joined.cases, location_priors(joined))
    known = LOCATION if any(prior is not None for prior in values.priors) else CENTRE
    methods = dict.fromkeys(method for case in joined.cases for method in case.records)
    found: dict[str, list[list[float]]] = {method: [] for method in (*methods, CENTRE, known, RANDOM)}
    for number, case in enumerate(values.cases):
        mask = case.truth.mask(case.rows, case.columns)
        for method, evidence in values.maps(number, folder).items():
            found[method].append(overlaps(evidence, mask))
    return {method: fixed_level(measured) for method, measured in found.items()}


def table(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Row]:
    """Means, with intervals over patients as far as these are known: of all cases, of each kind and joint."""
    patients, _ = numbered(case.patient for case in values.cases)
    parts = {name: Part(rows, _means(values, rows)) for name, rows in _parts(values.cases)}
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
    records = [values.cases[i].records.get(method) for i in rows]
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
