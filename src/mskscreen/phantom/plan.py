"""What a phantom data set is to hold: the recipe that decides every byte, and the studies that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version

from mskscreen.anatomy import JointType
from mskscreen.errors import DataError
from mskscreen.phantom.seeds import stream

# Raised with every change of a pixel: a folder is never continued by another renderer.
RENDERER = 1
_STUDIES_PER_PATIENT = (0.87, 0.11, 0.02)
_VALID_EVERY = 10


@dataclass(frozen=True)
class Recipe:
    """What decides every byte of a data set.

    `joints` (labels; empty for all seven) take turns; `pairs` writes the twin of every abnormal image, `dicom`
    a DICOM file of every image; `occult_apart` puts studies whose abnormality no image shows under `occult/`.
    `renderer` is the revision of what draws the pixels.
    """

    studies: int
    seed: int
    long_side: int = 512
    pairs: bool = False
    dicom: bool = False
    joints: tuple[str, ...] = ()
    occult_apart: bool = False
    version: str = field(default_factory=lambda: version("mskscreen"))
    renderer: int = RENDERER

    def __post_init__(self) -> None:
        """Raise DataError for a value that cannot be made."""
        if self.studies < 1:
            raise DataError(f"--studies {self.studies}: at least 1 is needed")
        if self.seed < 0:
            raise DataError(f"--seed {self.seed}: a seed is 0 or more")
        if not 64 <= self.long_side <= 4096:
            raise DataError(f"--long-side {self.long_side}: choose 64 to 4096 pixels (512 to 2500 for real work)")
        known = {joint.label for joint in JointType}
        if unknown := [name for name in self.joints if name not in known]:
            raise DataError(f"--joint {unknown[0]}: choose from {', '.join(sorted(known))}")


@dataclass(frozen=True)
class Slot:
    """The place of one study in the data set; `number` counts the studies of a patient's joint from 1."""

    index: int
    seed: int
    patient: int
    patient_seed: int
    joint: JointType
    number: int
    split: str


def plan(recipe: Recipe) -> list[Slot]:
    """The studies of a data set in order: joints take turns, one patient in eight has two or three studies."""
    joints = [JointType[name.upper()] for name in recipe.joints] or list(JointType)
    rng = stream(recipe.seed, "plan")
    slots: list[Slot] = []
    patient = 0
    while len(slots) < recipe.studies:
        patient += 1
        count = 1 + int(rng.choice(len(_STUDIES_PER_PATIENT), p=_STUDIES_PER_PATIENT))
        seen: dict[JointType, int] = {}
        for _ in range(count):
            index = len(slots)
            joint = joints[index % len(joints)]
            seen[joint] = seen.get(joint, 0) + 1
            split = "valid" if patient % _VALID_EVERY == 3 else "train"
            seeds = _seed(recipe.seed, "study", index), _seed(recipe.seed, "patient", patient)
            slots.append(Slot(index, seeds[0], patient, seeds[1], joint, seen[joint], split))
    return slots[: recipe.studies]


def _seed(seed: int, *names: str | int) -> int:
    return int(stream(seed, *names).integers(2**62))
