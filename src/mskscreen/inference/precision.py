"""Which precision a model runs in, and from which file: the fastest whose gate passed on this kind of machine."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from mskscreen.contract import MIN_STUDIES, ModelContract, Provenance
from mskscreen.errors import ModelError, MskscreenError
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.machine import machine_kind

log = logging.getLogger(__name__)
Precision = Literal["auto", "f32", "bf16", "int8"]
PRECISIONS = ("f32", "bf16", "int8")
# Images a second relative to f32 where a gate recorded none.
_USUAL_SPEED = {"f32": 1.0, "bf16": 2.0, "int8": 3.0}


@dataclass(frozen=True)
class Choice:
    """A precision, the file with its weights, whether its gate passed here, and why it was chosen, in words."""

    precision: str
    path: Path
    approved: bool
    why: str


def choose(
    contract: ModelContract,
    path: Path,
    engine: str,
    wanted: Precision,
    available: AbstractSet[str],
    *,
    unapproved: bool = False,
) -> Choice:
    """The precision of the model in `path` on an engine that computes in `available`.

    `auto` is the one whose gate recorded the most speed of those that passed on this kind of machine; f32 needs no
    gate. Another precision without a passed gate is refused, unless `unapproved`, which needs to be told which of
    several to take. Raises ModelError.
    """
    if wanted not in ("auto", *PRECISIONS):
        raise ModelError(f"precision '{wanted}' is unknown; use auto, {', '.join(PRECISIONS)}")
    if wanted == "auto" and unapproved:
        wanted = to_force(contract, path)
    if wanted == "auto":
        return _fastest(contract, path, engine, available)
    if wanted not in held(contract):
        remedy = (
            f"make them with: mskscreen export {path} --precision {wanted} --calibration MANIFEST --gate MANIFEST"
            if contract.precision == "f32"
            else "use the f32 file"
        )
        raise ModelError(f"{path}: holds no {wanted} weights, only {contract.precision}; {remedy}")
    if wanted not in available:
        raise ModelError(f"{engine} does not compute in {wanted} on this machine; use --precision f32")
    passed = _passed(contract, engine, wanted)
    if not passed and not unapproved:
        raise ModelError(f"{contract.title}: {_refusal(contract, path, engine, wanted)}")
    why = "as asked" if passed else f"forced: {_state(contract, engine, wanted)}"
    return Choice(wanted, file_of(contract, path, wanted), passed, why)


def to_force(contract: ModelContract, model: Path | str) -> Precision:
    """The precision that forcing means where none is named; ModelError where `model` holds several."""
    if len(precisions := held(contract)) > 1:
        raise ModelError(f"{model}: holds {', '.join(precisions)}; say which to force with --precision")
    return cast(Precision, contract.precision)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fastest(contract: ModelContract, path: Path, engine: str, available: AbstractSet[str]) -> Choice:
    here = [name for name in held(contract) if name in available]
    passed = [name for name in here if _passed(contract, engine, name)]
    refused = [_state(contract, engine, name) for name in here if name not in passed]
    for name in sorted(passed, key=lambda name: _speed(contract, engine, name), reverse=True):
        try:
            file = file_of(contract, path, name)
        except MskscreenError as error:
            log.warning("%s", error)
            refused.append(f"the {name} file cannot be used")
            continue
        reasons = ["the fastest that passed its gate on this kind of machine"] * (len(passed) > 1 or name != "f32")
        return Choice(name, file, True, ", ".join(reasons + refused) or "the only precision here")
    raise ModelError(f"{contract.title}: {_refusal(contract, path, engine, contract.precision)}")


def held(contract: ModelContract) -> tuple[str, ...]:
    """Precisions whose weights are in the model's file or in a file beside it."""
    own = ("f32", "bf16") if contract.precision == "f32" else (contract.precision,)
    return (*own, *contract.variants)


def _passed(contract: ModelContract, engine: str, precision: str) -> bool:
    gate = contract.gate(engine, precision, machine_kind())
    return precision == "f32" or (gate is not None and gate.approves)


def _speed(contract: ModelContract, engine: str, precision: str) -> float:
    gate = contract.gate(engine, precision, machine_kind())
    return (gate.measures if gate else {}).get("speed", _USUAL_SPEED.get(precision, 0.0))


def _state(contract: ModelContract, engine: str, precision: str) -> str:
    """Why a precision is not approved."""
    gate = contract.gate(engine, precision, machine_kind())
    if gate is None:
        return f"{precision} was not gated"
    if gate.passed:
        return f"{precision} was gated on {gate.measures.get('studies', 0):.0f} of {MIN_STUDIES} studies"
    return f"{precision} failed its gate"


def _refusal(contract: ModelContract, path: Path, engine: str, precision: str) -> str:
    gate = contract.gate(engine, precision, machine_kind())
    f32 = contract.precision == "f32"
    remedies = ["use --precision f32" if f32 else "use the f32 file"]
    if gate is None or gate.passed:
        file = path if f32 else "FILE"
        remedies.append(f"gate it with: mskscreen export {file} --precision {precision} --gate MANIFEST")
    return (
        f"{engine}/{_state(contract, engine, precision)} on this kind of machine ({machine_kind()}); "
        f"{', '.join(remedies)}, or force it with --force-precision, which flags every row"
    )


def file_of(contract: ModelContract, path: Path, precision: str) -> Path:
    """The file with the weights of a precision, after its identity has been checked."""
    variant = contract.variants.get(precision)
    if variant is None:
        return path
    file = path.with_name(variant.file)
    if not file.is_file():
        raise ModelError(f"{path}: its {precision} weights are missing; put {variant.file} into the same folder")
    if file.stat().st_size != variant.bytes or sha256_of(file) != variant.sha256:
        raise ModelError(
            f"{file}: is not the file that {path.name} names as its {precision}; export the model again"
        )
    if _kernel(read_contract(file)) != _kernel(contract):
        raise ModelError(f"{file}: its contract is not that of {path.name}; export the model again")
    return file


def _kernel(contract: ModelContract) -> ModelContract:
    """What the contracts of two precisions of one model share."""
    return replace(
        contract,
        approved={},
        variants={},
        precision="f32",
        content_sha256="",
        selftest=None,
        provenance=Provenance(),
    )
