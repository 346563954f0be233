"""The model contract: the frozen description that travels inside every model file.

It is written into a checkpoint and into the ONNX metadata, and every reader (preprocessing, engines,
evaluation, services) resolves what it needs from it. Nothing about a model is configured elsewhere.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mskscreen.anatomy import ABNORMALITY_LABELS, JOINT_LABELS
from mskscreen.errors import ContractError, short

SCHEMA = 2
METADATA_KEY = "mskscreen.contract"
TASKS = ("abnormality", "joint")
WEIGHTS = ("f32", "int8")  # What the weights of a file may be; bf16 is computed with those of f32.
# A file may not ask for more memory than this: one run of 1 GiB of float32.
MAX_INPUT = 1 << 28
_LONGEST_NAME = 255  # of a file, on the systems in use
MIN_STUDIES = 100  # Of fewer, a single flipped decision is more than a gate allows.


@dataclass(frozen=True)
class Calibration:
    """Temperatures that divide the raw scores before the softmax (Guo et al., arXiv:1706.04599)."""

    abnormality_temperature: float = 1.0
    joint_temperature: float = 1.0


@dataclass(frozen=True)
class MapOutput:
    """The evidence map that a model computes in the same pass as its scores.

    `stride` is the number of input pixels a cell of the map covers.
    """

    method: str
    layer: str
    stride: int


@dataclass(frozen=True)
class Novelty:
    """How far an image may lie from the training data in feature space before it is flagged.

    The graph computes the distance as output `novelty` (B,); `threshold` is its value at `quantile` on
    development images.
    """

    method: str
    threshold: float
    quantile: float


@dataclass(frozen=True)
class Gate:
    """Outcome of the parity gate of one precision on one engine, against f32 on the development fold.

    `measures` holds what was judged, on how many `studies`, and as `speed` images a second relative to f32 on the
    same engine.
    """

    passed: bool
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def approves(self) -> bool:
        """Whether it was passed, and on as many studies as a gate needs: older versions asked for fewer."""
        return self.passed and self.measures.get("studies", 0) >= MIN_STUDIES


@dataclass(frozen=True)
class Variant:
    """The same model at another precision, in the file named `file` in the same folder."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SelfTest:
    """What the model gave for the built-in image named `image` when it was exported.

    `outputs` maps the name of an output to its values, thinned as `mskscreen.inference.selftest` says.
    """

    image: str
    outputs: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: data digest, seed, software versions and plain words."""

    data: str = ""
    data_digest: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    licence: str = ""


@dataclass(frozen=True)
class ModelContract:
    """All that is needed to use a model correctly.

    `preprocessing` is a string of `mskscreen.pixels.preprocess`; `operating_points` maps a name to the
    study-level threshold of the calibrated abnormality probability, in (0, 1); `batch` is None where the batch
    size is dynamic. `approved` maps `engine/precision@machine` to the parity gate measured on that kind of
    machine, or `engine/precision` to one that holds on any. `precision` is that of the weights in this file, and
    `variants` maps others to the files that hold them; `content_sha256` is that of all in it but its metadata.

    Raises ContractError where a field is out of its range.
    """

    name: str
    architecture: str
    preprocessing: str
    input_size: tuple[int, int]
    schema: int = SCHEMA
    joints: tuple[str, ...] = JOINT_LABELS
    abnormality: tuple[str, ...] = ABNORMALITY_LABELS
    batch: int | None = None
    calibration: Calibration = Calibration()
    operating_points: Mapping[str, float] = field(default_factory=lambda: {"balanced": 0.5})
    study_aggregation: str = "mean"
    joint_confidence: float = 0.5
    map: MapOutput | None = None
    novelty: Novelty | None = None
    approved: Mapping[str, Gate] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    intended_use: str = "research use, not for diagnosis"
    precision: str = "f32"
    content_sha256: str = ""
    selftest: SelfTest | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.schema <= SCHEMA:
            raise ContractError(
                f"contract of {self.title}: schema {short(self.schema)} is not one of the schemas 1 to {SCHEMA} "
                "that this version of mskscreen reads; install the version that wrote it"
            )
        if self.joints != JOINT_LABELS or self.abnormality != ABNORMALITY_LABELS:
            raise ContractError(
                f"contract of {self.title}: fields joints and abnormality must be in the release's order"
            )
        if "balanced" not in self.operating_points:
            raise ContractError(f"contract of {self.title}: operating_points lacks 'balanced'")
        for name, threshold in self.operating_points.items():
            if not 0 < threshold < 1:
                raise ContractError(
                    f"contract of {self.title}: operating point '{short(name)}' is {threshold}, outside (0, 1)"
                )
        temperatures = (self.calibration.abnormality_temperature, self.calibration.joint_temperature)
        if not all(math.isfinite(value) and value > 0 for value in temperatures):
            raise ContractError(f"contract of {self.title}: temperatures must be positive numbers")
        if not 0 <= self.joint_confidence <= 1:
            raise ContractError(
                f"contract of {self.title}: joint_confidence is {self.joint_confidence}, outside [0, 1]"
            )
        if self.novelty and not (math.isfinite(self.novelty.threshold) and 0 <= self.novelty.quantile <= 1):
            raise ContractError(
                f"contract of {self.title}: novelty has threshold {self.novelty.threshold}, not finite, or "
                f"quantile {self.novelty.quantile}, outside [0, 1]"
            )
        if self.study_aggregation != "mean":
            raise ContractError(
                f"contract of {self.title}: study_aggregation '{short(self.study_aggregation)}' is unknown; "
                "use 'mean'"
            )
        sides = (*self.input_size, 1 if self.batch is None else self.batch)
        if min(sides) < 1 or math.prod(sides) > MAX_INPUT:
            raise ContractError(
                f"contract of {self.title}: input_size {short(self.input_size)} and batch "
                f"{short(self.batch)} are below 1, or of more than {MAX_INPUT:,} pixels together"
            )
        if self.map and self.map.stride < 1:
            raise ContractError(f"contract of {self.title}: map has a stride of {short(self.map.stride)}, below 1")
        if self.precision not in WEIGHTS:
            raise ContractError(
                f"contract of {self.title}: precision '{short(self.precision)}' is none of {', '.join(WEIGHTS)}"
            )
        for precision, variant in self.variants.items():
            if precision not in WEIGHTS or precision == self.precision:
                raise ContractError(
                    f"contract of {self.title}: field variants.{short(precision)} is no other precision of "
                    f"{', '.join(WEIGHTS)}"
                )
            bare = variant.file == re.split(r"[/\\\0]", variant.file)[-1] and len(variant.file) <= _LONGEST_NAME
            if variant.file in ("", ".", "..") or not bare:
                raise ContractError(
                    f"contract of {self.title}: field variants.{precision}.file is '{short(variant.file)}', "
                    "not the bare name of a file"
                )

    @property
    def title(self) -> str:
        """The model as messages call it."""
        return f"model '{short(self.name)}'"

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model learned, of `TASKS`, by the protocol of its training; without one, all.

        The output of another task says nothing, and no table shows it.
        """
        only = self.provenance.protocol.get("tasks")
        return (only,) if only in TASKS else TASKS

    def gate(self, engine: str, precision: str, machine: str) -> Gate | None:
        """The gate of a precision that was measured on this kind of machine, else one that holds on any."""
        return self.approved.get(gate_key(engine, precision, machine)) or self.approved.get(
            f"{engine}/{precision}"
        )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, so that equal contracts give equal text.

        Fields of schema 2 are written only where they are set: the digest of an older contract does not change.
        """
        values = dataclasses.asdict(self)
        for name, unset in _SINCE_SCHEMA_2.items():
            if values[name] == unset:
                del values[name]
        return json.dumps(values, sort_keys=True, separators=(",", ":"), default=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str, remedy: str = "export the model again") -> ModelContract:
        """Read a contract; unknown fields, missing fields and wrong types are errors that name the field.

        `remedy` is what to do about those. Raises ContractError.
        """
        try:
            value = json.loads(text)
            json.dumps(value, ensure_ascii=False).encode()  # JSON may hold halves of characters, tables cannot
        except (ValueError, RecursionError) as error:
            raise ContractError(f"the contract is not JSON ({error}); {remedy}") from error
        if not isinstance(value, dict):
            raise ContractError(f"the contract is not a JSON object; {remedy}")
        if _depth(value) > _DEEPEST:  # what follows calls itself for each level
            raise ContractError(f"the contract is nested more than {_DEEPEST} levels deep; {remedy}")
        schema = value.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise ContractError(
                f"the contract has schema {short(schema)}, newer than the schema {SCHEMA} that this version of "
                "mskscreen reads; install a newer mskscreen"
            )
        try:
            return typing.cast(ModelContract, _build(cls, value, "contract"))
        except _WrongFieldError as error:
            raise ContractError(f"{error}; {remedy}") from error


_DEEPEST = 64
_SINCE_SCHEMA_2: dict[str, Any] = {"precision": "f32", "content_sha256": "", "selftest": None, "variants": {}}


def _depth(value: object) -> int:
    """How many lists and objects lie within each other at most."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def gate_key(engine: str, precision: str, machine: str) -> str:
    """Key of `ModelContract.approved` for a gate measured on one kind of machine."""
    return f"{engine}/{precision}@{machine}"


class _WrongFieldError(ContractError):
    """A field is unknown, missing or of another type; whoever knows where the text is from knows the remedy."""


def _build(kind: Any, value: Any, where: str) -> Any:
    """Make a value of the annotated type `kind` from parsed JSON, naming `where` in every error."""
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, where)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin is tuple:
        fixed = arguments[-1] is not Ellipsis
        if not isinstance(value, list) or (fixed and len(value) != len(arguments)):
            wanted = f"a list of {len(arguments)}" if fixed else "a list"
            raise _WrongFieldError(f"{where}: expected {wanted}, found {short(value)}")
        return tuple(_build(arguments[i if fixed else 0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            _wrong(kind, value, where)
        return {key: _build(arguments[1], item, f"{where}.{short(key)}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 1 << 1000 else _wrong(kind, value, where)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        _wrong(kind, value, where)
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        _wrong(kind, value, where)
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        name = short(unknown[0])
        nearest = difflib.get_close_matches(name, hints, n=1, cutoff=0)
        raise _WrongFieldError(f"{where}: field '{name}' is unknown, the nearest is '{nearest[0]}'")
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(value))
    if missing:
        raise _WrongFieldError(f"{where}: field '{missing[0]}' is missing")
    return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _wrong(kind: Any, value: Any, where: str) -> typing.NoReturn:
    name = getattr(kind, "__name__", str(kind))
    raise _WrongFieldError(f"{where}: expected {name}, found {type(value).__name__}")
