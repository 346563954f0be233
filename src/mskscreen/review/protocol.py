"""The frozen protocol of a reading study, and the key that is kept from the readers.

The protocol, one for all phases, lies in the folder of each and says what is asked and how it will be analysed; it
commits to the key and to the pictures by their SHA-256. The key says what each code stands for and holds the
protocol once more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mskscreen
from mskscreen.anatomy import ABNORMALITY_LABELS, NOT_FOR_DIAGNOSIS
from mskscreen.errors import DataError
from mskscreen.evaluation.intervals import LEVEL, RESAMPLES
from mskscreen.saliency.measures import TOLERANCE

SCHEMA = 2
UNAIDED, AIDED = "unaided", "aided"
CALLS = ABNORMALITY_LABELS
JUDGEMENTS = ("agree", "partly", "disagree", "uninterpretable")
CONFIDENCE = ("1", "2", "3", "4", "5")
PROTOCOL, FORMS, IMAGES = "protocol.json", "forms", "images"
PAUSE = "at least four weeks"


@dataclass(frozen=True)
class View:
    """One image of a case: its file in the predictions table, its size, and where its map is highest (x, y).

    `mapped` says whether readers see a map of it: the model calls it abnormal. `peak` is None where the map shows
    no evidence or there is no map.
    """

    file: str
    rows: int
    columns: int
    peak: tuple[float, float] | None
    mapped: bool = True


@dataclass(frozen=True)
class ReviewCase:
    """One study that readers see, with its truth and the model's score."""

    study: str
    patient: str
    joint: str
    label: int
    p_abnormal: float
    views: tuple[View, ...]

    @property
    def mapped(self) -> bool:
        """Whether readers see a map of one of its views."""
        return any(view.mapped for view in self.views)


@dataclass(frozen=True)
class Showing:
    """What a code stands for: a case in a phase, for the first time or again."""

    case: int
    phase: str
    repeat: bool


@dataclass(frozen=True)
class Key:
    """What the readers must not know; `request` is what was asked for, `seed` what the pack was made with."""

    request: Mapping[str, Any]
    seed: int | None
    threshold: float
    cases: tuple[ReviewCase, ...]
    showings: Mapping[str, Showing]
    protocol: Mapping[str, Any]

    def to_json(self) -> str:
        """The key as text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Key:
        """Read a key.

        Raises DataError that names the file, also where the pack was made in another layout than today's.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            cases = tuple(
                ReviewCase(
                    **{**case, "views": tuple(View(**{**v, "peak": _point(v["peak"])}) for v in case["views"])}
                )
                for case in value["cases"]
            )
            showings = {code: Showing(**showing) for code, showing in value["showings"].items()}
            seed = value.get("seed", value["request"].get("seed"))
            key = cls(value["request"], seed, float(value["threshold"]), cases, showings, value["protocol"])
            schema = key.protocol["schema"]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: not the key of a review pack ({error}); name the key of this pack"
            ) from error
        if schema != SCHEMA:
            raise DataError(
                f"{path}: is the key of a pack in layout {schema}, not {SCHEMA} with a folder for each phase; "
                "make a new pack under another name, or score this one with the version of mskscreen that made it"
            )
        return key


def _point(values: Any) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))


def make_protocol(
    phases: Iterable[str], readers: Iterable[str], images_sha256: Mapping[str, str]
) -> dict[str, Any]:
    """The protocol without its commitment to the key; `images_sha256` are digests of the pictures by phase.

    It tells no reader how many cases are abnormal or shown twice.
    """
    return {
        "schema": SCHEMA,
        "mskscreen": mskscreen.__version__,
        "notice": NOT_FOR_DIAGNOSIS,
        "phases": list(phases),
        "readers": list(readers),
        "questions": {
            "call": list(CALLS),
            "confidence": list(CONFIDENCE),
            "map": list(JUDGEMENTS),
            "box": "optional: VIEW LEFT TOP RIGHT BOTTOM in pixels of the radiograph, several with ; between",
        },
        "conditions": [
            "each reader reads alone and in the order of the form",
            f"the {AIDED} phase follows the {UNAIDED} one after {PAUSE}; nobody has its folder before",
            "an answer that was given is not changed later",
        ],
        "analysis": {
            "of": [
                "sensitivity, specificity and AUROC of the confidence, by phase, and their differences",
                "percent agreement, mean Cohen's kappa, Fleiss' kappa and Gwet's AC1 between readers",
                "agreement of each reader with itself on the cases shown twice",
                "judgements of the maps, which are drawn of images called abnormal, by model call and by truth",
                f"pointing game of their maxima in the boxes, or within {TOLERANCE:.0%} of the long side of them",
            ],
            "intervals": f"percentile, {LEVEL:.0%}, bootstrap over readers and cases",
            "resamples": RESAMPLES,
            "seed": 0,
        },
        "images_sha256": dict(images_sha256),
    }


def freeze(body: Mapping[str, Any], key: str) -> str:
    """The text of the protocol: `body` and the digest of the key it commits to."""
    return json.dumps({**body, "key_sha256": digest(key)}, indent=1) + "\n"


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def images_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all pictures of a folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = (f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names)
    return digest("".join(lines))


def open_pack(pack: Path, key_path: Path) -> tuple[Key, str]:
    """The key of a pack and the digest of its protocol.

    Raises DataError where protocol, key and pictures of any phase are not those that were frozen together.
    """
    key = Key.read(key_path)
    key_text = key_path.read_text(encoding="utf-8")
    frozen = freeze(key.protocol, key_text)
    for phase in key.protocol["phases"]:
        path = pack / phase / PROTOCOL
        try:
            text = path.read_text(encoding="utf-8")
            committed = json.loads(text)["key_sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}: not the protocol of a review pack ({error}); name the whole folder of a pack"
            ) from error
        if committed != digest(key_text):
            raise DataError(f"{key_path}: not the key that {path} commits to; name the key of this pack")
        if text != frozen:
            raise DataError(f"{path}: changed since it was frozen; put back the protocol that was handed out")
        if images_digest(pack / phase) != key.protocol["images_sha256"][phase]:
            raise DataError(
                f"{path.parent}: its pictures are not those that were frozen; put back the pack that was read"
            )
    return key, digest(frozen)
