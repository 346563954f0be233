"""One study: a patient, one to four views, and in about half of them one abnormality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.phantom.body import Body, pose_body
from mskscreen.phantom.pathology.context import Context, Facts, Site, degrees
from mskscreen.phantom.pathology.kinds import Kind, choose_kind
from mskscreen.phantom.patient import Patient, draw_patient
from mskscreen.phantom.positioning import draw_angles
from mskscreen.phantom.scene import Camera, Exposure, Scene
from mskscreen.phantom.seeds import stream
from mskscreen.phantom.skeleton import Skeleton
from mskscreen.phantom.soft_tissue import cervical_spine, fat_planes, soft_tissue
from mskscreen.phantom.variants import Variants, draw_variants
from mskscreen.phantom.views import Projection, draw_camera, projections, turn_on_plate

PREVALENCE = 0.45
_VIEW_COUNTS = (0.22, 0.36, 0.34, 0.08)
_MARGIN = 0.05
_ATTEMPTS = 90
_SITES_OF_A_KIND = 30
_TRUNK = (JointType.SHOULDER, JointType.HUMERUS)
_ELBOW_SEEN = (JointType.FOREARM, JointType.ELBOW)
# Tube voltage (kV), scatter without a grid (see `Exposure`) and photons in the open beam: all rise with the part's
# thickness, as automatic exposure control makes them. These numbers, heel and blur are our choice.
_BEAMS = {
    JointType.FINGER: ((46.0, 53.0), 0.12, 1.5e4),
    JointType.HAND: ((48.0, 56.0), 0.15, 2e4),
    JointType.WRIST: ((50.0, 58.0), 0.18, 2e4),
    JointType.FOREARM: ((53.0, 62.0), 0.25, 3e4),
    JointType.ELBOW: ((55.0, 65.0), 0.3, 4e4),
    JointType.HUMERUS: ((60.0, 74.0), 0.5, 8e4),
    JointType.SHOULDER: ((66.0, 82.0), 0.8, 1.6e5),
}
# The beam runs along the chest wall or the shoulder's width: automatic exposure control gives these views more.
_LONG_PATHS = {"Y view": 3.0, "axillary": 2.0}
_READOUT = (4.0, 16.0)  # electronic noise of the detector, in quanta a pixel


@dataclass(frozen=True)
class CaseView:
    """One exposure: what is in the beam without and, in an abnormal study, with the abnormality.

    `pose` holds the flexion of the elbow and how the limb lies on the plate, for the manifest.
    """

    view_name: str
    laterality: str
    camera: Camera
    scene_normal: Scene
    scene_abnormal: Scene | None
    exposure: Exposure
    pose: dict[str, float]


@dataclass(frozen=True)
class Case:
    """A study of one patient; `facts` are JSON-able and describe patient, variants and abnormality."""

    seed: int
    joint: JointType
    abnormal: bool
    views: tuple[CaseView, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Exposed:
    """A view before anything is known of an abnormality; `refurnish` makes the scene of a body that it moved."""

    projection: Projection
    body: Body
    scene: Scene
    camera: Camera
    refurnish: Callable[[Body], Scene]
    exposure: Exposure
    pose: dict[str, float]

    def furnish(self, body: Body) -> Scene:
        """The scene of a body, without pathology."""
        return self.scene if body is self.body else self.refurnish(body)


def make_case(
    seed: int,
    joint: JointType | None = None,
    view: str | None = None,
    abnormal: bool | None = None,
    kind: str | None = None,
    *,
    long_side: int = 512,
    patient_seed: int | None = None,
) -> Case:
    """The case of a seed; what is None is drawn.

    `view` names the first projection of the study, `kind` an entry of `pathology.kinds.KINDS` (and makes the
    study abnormal), `patient_seed` keys a patient that studies share. Whatever is asked of the abnormality,
    patient, views, beam and variants stay those of the seed, so two calls that differ in `abnormal` or `kind`
    make twins. Raises MskscreenError for a view or a kind that the region does not have.
    """
    study = stream(seed, "study")
    drawn = JointType(int(study.integers(len(JointType))))
    joint = drawn if joint is None else JointType(joint)
    skeleton = Skeleton.load()
    patient = draw_patient(stream(seed if patient_seed is None else patient_seed, "anatomy"), skeleton.bones)
    digit = _draw_digit(joint, view, stream(seed, "digit"))
    entries = _draw_projections(joint, view, digit, stream(seed, "view"))
    variants = draw_variants(stream(seed, "variants"), patient, joint, digit)
    exposed = [
        _expose(seed, number, entry, joint, digit, patient, variants, long_side)
        for number, entry in enumerate(entries)
    ]
    chance = stream(seed, "label").random()
    if abnormal is None:
        abnormal = kind is not None or chance < PREVALENCE
    facts: dict[str, Any] = {"joint": joint.label, **patient.facts, "variants": list(variants.names)}
    if joint is JointType.FINGER:
        facts["digit"] = digit
    scenes: list[Scene | None] = [None] * len(exposed)
    if abnormal:
        effects = _draw_effect(seed, joint, digit, patient, kind, exposed)
        scenes = [scene for scene, _ in effects]
        facts |= effects[0][1]
    views = tuple(
        CaseView(e.projection.name, patient.laterality, e.camera, e.scene, scene, e.exposure, e.pose)
        for e, scene in zip(exposed, scenes, strict=True)
    )
    return Case(seed, joint, abnormal, views, facts)


def _draw_digit(joint: JointType, view: str | None, rng: np.random.Generator) -> int:
    """The finger under examination, one that the view asked for can show."""
    return int(rng.choice(sorted({digit for entry in projections(joint, view) for digit in entry.digits})))


def _draw_projections(
    joint: JointType, view: str | None, digit: int, rng: np.random.Generator
) -> list[Projection]:
    """The study's projections, each name at most once; the first is the one asked for."""
    table = [entry for entry in projections(joint) if digit in entry.digits]
    # Weighted sampling without replacement (Efraimidis and Spirakis 2006).
    keys = rng.random(len(table)) ** (1 / np.array([entry.share for entry in table]))
    count = 1 + int(rng.choice(len(_VIEW_COUNTS), p=_VIEW_COUNTS))
    ranked = [table[index] for index in np.argsort(-keys)]
    ranked.sort(key=lambda entry: entry.name != view)
    # A name that stands twice in the table comes at the later of its two places (docs/phantoms.md, limits).
    return list({entry.name: entry for entry in reversed(ranked)}.values())[::-1][:count]


def _expose(
    seed: int,
    number: int,
    entry: Projection,
    joint: JointType,
    digit: int,
    patient: Patient,
    variants: Variants,
    long_side: int,
) -> _Exposed:
    skeleton = Skeleton.load()
    angles = draw_angles(entry.position, digit, stream(seed, "pose", number))
    body = pose_body(skeleton, patient, angles)
    camera = draw_camera(body, joint, entry, digit, long_side, stream(seed, "view", number))
    furnish = partial(_furnish, joint=joint, variants=variants)
    exposure = _draw_exposure(joint, entry.name, stream(seed, "beam", number))
    pose = {
        "elbow_flexion_degrees": degrees(angles["elbow_flexion"]),
        "turn_degrees": degrees(turn_on_plate(body, joint, entry.name, digit, camera)),
    }
    return _Exposed(entry, body, furnish(body), camera, furnish, exposure, pose)


def _furnish(body: Body, joint: JointType, variants: Variants) -> Scene:
    """The scene of a body: bones, soft tissue and variants."""
    trunk = joint in _TRUNK
    hidden = () if trunk else ("thorax",) if joint in _ELBOW_SEEN else ("thorax", "scapula", "clavicle", "humerus")
    bones = tuple(body.bone_part(bone) for bone in body.transforms if bone not in hidden)
    solids = fat_planes(body) + (cervical_spine(body) if trunk else ())
    scene = Scene(bones=bones, solids=solids, tissue=soft_tissue(body, trunk=trunk))
    return variants.apply(scene, body)


def _draw_exposure(joint: JointType, view: str, rng: np.random.Generator) -> Exposure:
    voltages, scatter, quanta = _BEAMS[joint]
    quanta *= _LONG_PATHS.get(view, 1.0)
    grid = joint in _TRUNK and rng.random() < 0.7
    kilovolts = rng.uniform(*voltages)
    dose = float(np.exp(rng.normal(0.0, 0.5)))
    if rng.random() < 0.08:
        dose *= float(rng.choice([0.12, 6.0]))
    return Exposure(
        kilovolts=kilovolts,
        quanta=quanta * dose,
        scatter=scatter * rng.uniform(0.6, 1.4),
        heel=(rng.uniform(-0.15, 0.15), rng.uniform(-0.05, 0.05)),
        blur=rng.uniform(0.4, 0.95),
        electronic_noise=rng.uniform(*_READOUT) / (quanta * dose),
        grid=bool(grid),
    )


def _draw_effect(
    seed: int, joint: JointType, digit: int, patient: Patient, wanted: str | None, exposed: list[_Exposed]
) -> list[tuple[Scene, Facts]]:
    """The abnormality in every view: sites, and now and then the kind, are drawn until all fields show it."""
    names = tuple(view.projection.name for view in exposed)
    best: tuple[int, int, Kind, Site] | None = None
    for attempt in range(_ATTEMPTS):
        kind = choose_kind(joint, names, wanted, stream(seed, "kind", attempt // _SITES_OF_A_KIND))
        site = kind.site(joint, digit, patient, stream(seed, "pathology", "site", attempt))
        seen = sum(_in_field(view, site) for view in exposed)
        if best is None or seen > best[0]:
            best = (seen, attempt, kind, site)
        if seen == len(exposed):
            break
    assert best is not None  # noqa: S101
    _, attempt, kind, site = best
    results = []
    for view in exposed:
        context = Context(view.body, joint, site, view.furnish)
        scene, facts = kind.make(context, stream(seed, "pathology", "effect", attempt))
        place = {"fraction": round(site.fraction, 3), "azimuth_degrees": degrees(site.azimuth)}
        about = {"kind": kind.name, "bone": site.bone} | place
        results.append((scene, about | facts))
    return results


def _in_field(view: _Exposed, site: Site) -> bool:
    column, row = view.camera.project(view.body.point(site.bone, site.fraction))[0]
    across, down = column / view.camera.columns, row / view.camera.rows
    return bool(_MARGIN < across < 1 - _MARGIN and _MARGIN < down < 1 - _MARGIN)
