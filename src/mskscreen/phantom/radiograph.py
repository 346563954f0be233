"""From the views of a case to finished images: exposure, display, plate, medium, mask, twin and visibility."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mskscreen.phantom.case import Case, CaseView
from mskscreen.phantom.display import DisplayStyle, Family, process, sample_style
from mskscreen.phantom.film import Medium, develop, sample_medium
from mskscreen.phantom.physics import draw_noise, expose
from mskscreen.phantom.plate import (
    Layout,
    burn_text,
    cropped,
    fitted,
    lead_marker,
    sample_collimation,
    sample_layout,
)
from mskscreen.phantom.render import trace, trace_twins
from mskscreen.phantom.scene import Camera, Exposure, Layers, Material
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.visibility import ROSE_THRESHOLD, rose_k

_SHARED_PLATE = 0.1


@dataclass(frozen=True)
class Finished:
    """One image of a study.

    `display` is float32 (rows, columns) in [0, 1], bone bright; `inverted` says that it is to be stored with
    bone dark. Where the abnormality lies in the field there are also its `mask`, bool of the same shape, and
    the `twin` without it; `visibility` is Rose's k of the pair, 0 for an abnormality outside the field and None in
    a normal study. `exposures` describe each exposure on the image (JSON-able): view, tube voltage, quanta in an
    open pixel, scatter, grid, exposed share of its box, and pose. `kilovolts` and `pixel`, the spacing in
    millimetres at the object, are None where exposures differ.
    """

    display: np.ndarray
    mask: np.ndarray | None
    twin: np.ndarray | None
    visibility: float | None
    views: tuple[str, ...]
    laterality: str
    inverted: bool
    kilovolts: float | None
    pixel: float | None
    style: str
    film: bool
    exposures: tuple[dict[str, Any], ...]

    @property
    def occult(self) -> bool:
        """Whether the study is abnormal but nobody could tell from this image."""
        return self.visibility is not None and self.visibility < ROSE_THRESHOLD


@dataclass(frozen=True)
class _Shot:
    """One exposure: all that is drawn for it is drawn once and shared by both twins.

    Only the `window` of the box on the plate that the beam reaches is rendered; `camera` and `coverage` are of its
    size, `shape` is the box's.
    """

    number: int
    view: CaseView
    camera: Camera
    exposure: Exposure
    coverage: np.ndarray
    surround: float
    shape: tuple[int, int]
    window: tuple[slice, slice]


def finish(case: Case, long_side: int = 512) -> Iterator[Finished]:
    """Render the images of a study in order, each with its long side of `long_side` pixels."""
    style = sample_style(stream(case.seed, "display"))
    for number, indices in enumerate(_plates(case)):
        yield _finish_plate(case, number, indices, long_side, style)


def stored_bytes(image: np.ndarray, inverted: bool) -> np.ndarray:
    """Quantise a displayed image to uint8, with bone dark if `inverted`."""
    levels = np.rint(image * np.float32(255)).astype(np.uint8)
    return np.uint8(255) - levels if inverted else levels


def _plates(case: Case) -> list[list[int]]:
    """Which views share an image: now and then two to four exposures are made on one plate."""
    rng = stream(case.seed, "plate", "sharing")
    alone, size, count = rng.random() > _SHARED_PLATE, int(rng.integers(2, 5)), len(case.views)
    if alone:
        return [[i] for i in range(count)]
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _finish_plate(case: Case, number: int, indices: list[int], long_side: int, style: DisplayStyle) -> Finished:
    rng = stream(case.seed, "plate", number)
    views = [case.views[i] for i in indices]
    medium = sample_medium(rng, film_like=style.family is Family.FILM)
    shapes = [(view.camera.rows, view.camera.columns) for view in views]
    layout = sample_layout(rng, shapes, long_side)
    shots = [
        _shot(i, view, (box.rows, box.columns), medium, rng)
        for i, view, box in zip(indices, views, layout.boxes, strict=True)
    ]

    def image_of(parts: list[np.ndarray]) -> np.ndarray:
        image = _assembled(layout, parts, medium.surround)
        burn_text(image, stream(case.seed, "plate", number, "text"), _side(views[0]), views[0].view_name)
        return develop(image, medium, stream(case.seed, "plate", number, "film"))

    taken = [_take(case.seed, shot, style) for shot in shots]
    image = image_of([with_it for with_it, _, _ in taken])
    mask = _assembled(layout, [mask for _, _, mask in taken], False)
    twin = image_of([without for _, without, _ in taken]) if mask.any() else None
    visibility = None
    if case.abnormal:
        parts = [box.slices for box in layout.boxes]
        visibility = 0.0 if twin is None else max(rose_k(image[at], twin[at], mask[at]) for at in parts)
    return Finished(
        image,
        mask if twin is not None else None,
        twin,
        visibility,
        tuple(view.view_name for view in views),
        _side(views[0]),
        medium.inverted,
        _common([shot.exposure.kilovolts for shot in shots]),
        _common([1000 * shot.camera.pixel for shot in shots]),
        str(style.family),
        bool(medium.film),
        tuple(_described(shot) for shot in shots),
    )


def _common(values: list[float]) -> float | None:
    """The value that all share to one in a thousand, if they do."""
    return values[0] if np.ptp(values) <= 1e-3 * values[0] else None


def _described(shot: _Shot) -> dict[str, Any]:
    exposure = shot.exposure
    return {
        "view": shot.view.view_name,
        "kilovolts": round(exposure.kilovolts, 1),
        "quanta": round(exposure.quanta),
        "scatter": round(exposure.scatter, 3),
        "grid": exposure.grid,
        "exposed": round(float(shot.coverage.sum()) / math.prod(shot.shape), 3),
        **shot.view.pose,
    }


def _side(view: CaseView) -> str:
    """`L` or `R`, as on a marker and in DICOM's Image Laterality."""
    return view.laterality[0].upper()


def _shot(number: int, view: CaseView, shape: tuple[int, int], medium: Medium, rng: np.random.Generator) -> _Shot:
    camera = fitted(view.camera, *shape)
    coarser = camera.pixel / view.camera.pixel
    # Dose is of an area; blur stays in pixels, for a coarser image is a shrunken one, smoothed against aliasing.
    exposure = replace(view.exposure, quanta=view.exposure.quanta * medium.dose * coarser**2)
    coverage = sample_collimation(rng).coverage(*shape)
    window = _extent(coverage)
    inside = coverage[window]
    return _Shot(number, view, cropped(camera, window), exposure, inside, medium.surround, shape, window)


def _extent(coverage: np.ndarray) -> tuple[slice, slice]:
    """The smallest window that holds every pixel the beam reaches."""
    rows, columns = (np.flatnonzero(coverage.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _take(seed: int, shot: _Shot, style: DisplayStyle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both twins of one exposure with the same noise, and the mask; one and the same image if there is no mask."""
    view, nothing = shot.view, np.zeros(shot.shape, bool)
    noise = draw_noise(shot.coverage.shape, stream(seed, "detector", shot.number))
    if view.scene_abnormal is None:
        layers = trace(view.scene_normal, shot.camera)
        normal = _displayed(seed, shot, layers, _marker(seed, shot, layers), noise, style)
        return normal, normal, nothing
    with_it, without = trace_twins(view.scene_abnormal, view.scene_normal, shot.camera)
    lead = _marker(seed, shot, without)
    abnormal = _displayed(seed, shot, with_it, lead, noise, style)
    mask = nothing.copy()
    if with_it.mask is not None:
        mask[shot.window] = with_it.mask & (shot.coverage > 0.5)
    if not mask.any():
        return abnormal, abnormal, nothing
    return abnormal, _displayed(seed, shot, without, lead, noise, style), mask


def _marker(seed: int, shot: _Shot, layers: Layers) -> np.ndarray:
    """The side marker, laid by one who sees the patient without the abnormality."""
    rng = stream(seed, "plate", "marker", shot.number)
    return lead_marker(rng, shot.coverage, layers.paths[Material.BONE], _side(shot.view))


def _displayed(
    seed: int,
    shot: _Shot,
    layers: Layers,
    lead: np.ndarray,
    noise: tuple[np.ndarray, np.ndarray],
    style: DisplayStyle,
) -> np.ndarray:
    """The collimated display of one exposure, its lead marker in the beam, in the size of its box."""
    paths = dict(layers.paths)
    paths[Material.LEAD] = paths[Material.LEAD] + lead if Material.LEAD in paths else lead
    intensity = expose(Layers(paths), shot.exposure, noise)
    image = process(intensity, style, stream(seed, "display", shot.number), field=shot.coverage > 0.5)
    whole = np.full(shot.shape, shot.surround, np.float32)
    whole[shot.window] += shot.coverage * (image - np.float32(shot.surround))
    return whole


def _assembled(layout: Layout, parts: list[np.ndarray], ground: float) -> np.ndarray:
    whole = np.full((layout.rows, layout.columns), ground, parts[0].dtype)
    for box, part in zip(layout.boxes, parts, strict=True):
        whole[box.slices] = part
    return whole
