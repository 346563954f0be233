"""Whether the model uses what its maps say: measures of each map against the model itself, and against twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from mskscreen.errors import DataError
from mskscreen.evaluation.explain.cases import Case
from mskscreen.evaluation.explain.explainer import Explainer
from mskscreen.evaluation.explain.score import Asked
from mskscreen.evaluation.repredict import find_image
from mskscreen.inference.screener import Screener
from mskscreen.pixels import Geometry, Radiograph, read_radiograph
from mskscreen.saliency.faithfulness import infidelity, insertion_deletion, road
from mskscreen.saliency.measures import rank_correlation, resample
from mskscreen.saliency.patches import counterfactual
from mskscreen.saliency.target import Score, Target

COUNTERFACTUAL = "rank with counterfactual"
FAITHFUL = ("insertion", "deletion", "road", "infidelity", COUNTERFACTUAL)
_PATCHES = 16


def asking(screener: Screener, cases: Sequence[Case], limit: int, root: Path | None = None) -> Asked:
    """Gives the measures `FAITHFUL` of every map and reference of at most `limit` of the cases, spread evenly.

    The last is taken where the truth has a twin. Images are read from the files that the records name or, if
    given, below `root`; the measures raise DataError where one is not there.
    """
    explainer = Explainer(screener.engine)
    chosen = set(_spread(len(cases), limit))

    def ask(number: int, case: Case, maps: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
        if number not in chosen:
            return {}
        image = screener.preprocessing(_read(case, screener, root))
        geometry = screener.preprocessing.geometry(case.rows, case.columns)
        score = explainer.score(_target(case))
        evidence = {name: to_input(geometry, values) for name, values in maps.items()}
        shares = infidelity(score, image, evidence, seed=number)
        reference = _counterfactual(case, screener, score, image)
        found = {}
        for name, values in maps.items():
            ranked = to_input(geometry, values, margin=np.nan)
            found[name] = {"infidelity": shares[name], **insertion_deletion(score, image, ranked)}
            found[name]["road"] = road(score, image, ranked, seed=number)
            if reference is not None:
                found[name][COUNTERFACTUAL] = rank_in_box(geometry, evidence[name], reference)
        return found

    return ask


def to_input(geometry: Geometry, values: np.ndarray, *, margin: float = 0.0) -> np.ndarray:
    """A map in the frame of the radiograph as one of the model's input (H, W).

    The margin, which is black already, is 0: no evidence. For rankings, in which it has no place, it is NaN.
    """
    found = np.full((geometry.height, geometry.width), margin, np.float32)
    rows = slice(geometry.top, geometry.top + geometry.box_height)
    columns = slice(geometry.left, geometry.left + geometry.box_width)
    found[rows, columns] = resample(values, geometry.box_height, geometry.box_width)
    return found


def rank_in_box(geometry: Geometry, evidence: np.ndarray, reference: np.ndarray) -> float:
    """Rank correlation of a map of the model's input (H, W) with a `reference` of fewer cells (h, w).

    Only cells that lie wholly in the radiograph count: on the margin, where no patch changes anything, any two
    maps agree.
    """
    chosen = []
    for cells, size, start, box in (
        (reference.shape[0], geometry.height, geometry.top, geometry.box_height),
        (reference.shape[1], geometry.width, geometry.left, geometry.box_width),
    ):
        edges = np.arange(cells + 1) * size // cells
        chosen.append((edges[:-1] >= start) & (edges[1:] <= start + box))
    inside = np.ix_(*chosen)
    return rank_correlation(resample(evidence, *reference.shape)[inside], reference[inside])


def _read(case: Case, screener: Screener, root: Path | None) -> Radiograph:
    path = Path(case.file) if root is None else find_image(root, case.file)
    if path is None or not path.is_file():
        where = "there" if root is None else f"below {root}"
        raise DataError(f"{case.file}: the image is not {where}; name the folder of the images with --root")
    radiograph = read_radiograph(path, screener.limits)
    if radiograph.values.shape != (case.rows, case.columns):
        raise DataError(f"{path}: size {radiograph.values.shape} is not that of its maps; run explain again")
    return radiograph


def _counterfactual(case: Case, screener: Screener, score: Score, image: np.ndarray) -> np.ndarray | None:
    if case.truth.twin is None or not case.truth.twin.is_file():
        return None
    twin = screener.preprocessing(read_radiograph(case.truth.twin, screener.limits))
    found = counterfactual(score, image, twin, _PATCHES).values
    return found if found.any() else None


def _target(case: Case) -> Target:
    return Target.parse(next(iter(case.records.values())).of)


def pictures(cases: Sequence[Case], folder: Path, most: int) -> list[tuple[Case, Image.Image]]:
    """The overlay of the first method of at most `most` cases, spread evenly, at 480 pixels, if it can be read."""
    found = []
    for number in _spread(len(cases), most):
        record = next(iter(cases[number].records.values()))
        if record.overlay:
            with (
                suppress(OSError, ValueError, Image.DecompressionBombError),
                Image.open(folder / record.overlay) as picture,
            ):
                picture.thumbnail((720, 480))
                found.append((cases[number], picture.convert("RGB")))
    return found


def _spread(count: int, most: int) -> list[int]:
    """Numbers of at most `most` of `count` cases, spread evenly over them."""
    found: list[int] = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int)).tolist()
    return found
