"""Faster precisions of a model: made, gated on every engine, and recorded in the contracts of its files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mskscreen.contract import METADATA_KEY, SCHEMA, Gate, ModelContract, Variant, gate_key
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError, ModelError, MskscreenError
from mskscreen.export import gate as gates
from mskscreen.export.images import (
    Images,
    Truth,
    calibration_rows,
    development_fold,
    development_rows,
    load_images,
    require_apart,
)
from mskscreen.export.onnx import complete
from mskscreen.export.quantise import Quantised
from mskscreen.inference import open_engine
from mskscreen.inference.backends import BACKENDS
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.machine import machine_kind
from mskscreen.inference.onnx_file import content_digest, write_metadata
from mskscreen.inference.precision import file_of, sha256_of
from mskscreen.lock import locked
from mskscreen.storage import replacing

log = logging.getLogger(__name__)
CALIBRATION_IMAGES = 300
PASSED, FAILED, NOT_GATED = "passed", "failed", "not gated"
NOT_HERE, TOO_FEW = "not computed on this machine", "too few studies"
# Where a contract says how its int8 weights were made, and from which job its gates come.
PROVENANCE_KEY = "precisions"

Track = Callable[[str, int], Callable[[int], None]]
Gates = dict[str, Gate]


@dataclass(frozen=True)
class Request:
    """What to make: `precisions` of bf16 and int8, with the data they need.

    int8 needs `calibration`, unless its file is there and is only to be gated; without `gate` nothing is approved.
    """

    precisions: Sequence[str]
    calibration: Manifest | None = None
    gate: Manifest | None = None
    calibration_images: int = CALIBRATION_IMAGES
    seed: int = 0

    def digest(self, model: Path, out: Path) -> str:
        """What the outcome in `out` depends on, as one SHA-256: graph, contract, data, machine and versions."""
        contract = read_contract(model)
        plain = _plain(contract)
        if not (out.is_file() and model.samefile(out)):  # there they are the outcome itself
            plain = replace(plain, approved=contract.approved, variants=contract.variants)
        parts = [
            content_digest(model),
            plain.digest,
            *self.precisions,
            *(manifest.digest if manifest else "" for manifest in (self.calibration, self.gate)),
            str(self.calibration_images),
            str(self.seed),
            machine_kind(),
            *(importlib.metadata.version(name) for name in ("nncf", *BACKENDS)),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of a precision on an engine of this machine; `measures` are those of its gate."""

    engine: str
    precision: str
    what: str
    measures: Mapping[str, float] = field(default_factory=dict)


def outcomes(contract: ModelContract, precisions: Sequence[str]) -> list[Outcome]:
    """Outcomes of the gates that a contract records, on every engine of this kind of machine."""
    found = []
    for precision, (engine, backend) in itertools.product(precisions, BACKENDS.items()):
        gate = contract.approved.get(gate_key(engine, precision, machine_kind()))
        if precision not in backend.precisions():
            found.append(Outcome(engine, precision, NOT_HERE))
        elif gate is None:
            found.append(Outcome(engine, precision, NOT_GATED))
        else:
            what = PASSED if gate.approves else TOO_FEW if gate.passed else FAILED
            found.append(Outcome(engine, precision, what, gate.measures))
    return found


def add_precisions(
    model: Path, request: Request, out: Path, track: Track = lambda *_: lambda _: None
) -> tuple[ModelContract, bool]:
    """Write `model`, an f32 ONNX file with a contract, to `out` with what `request` asks for.

    int8 weights go to `NAME.int8.onnx` beside it. Gates of other kinds of machine are kept. Returns the contract
    and whether anything was done: nothing is where `out` is the outcome of the same request already.

    Raises ModelError, ContractError, DataError.
    """
    contract = read_contract(model)
    if contract.precision != "f32":
        raise ModelError(f"{model}: holds {contract.precision} weights; start from the f32 file")
    job = request.digest(model, out)
    if out.is_file() and _is_outcome(out, job):
        return read_contract(out), False
    judged = _judged(request, contract)
    only_gated = "int8" in request.precisions and request.calibration is None
    there = _existing_int8(model, contract) if only_gated else None
    with work_folder(out, "precisions") as work:
        int8_wanted = "int8" in request.precisions
        calibration = _calibration(request, judged, contract, work, track) if int8_wanted else None
        judge = _judge(request, judged, model, contract, work, track)
        approved, notes = dict(contract.approved), {**_notes(contract), "job": job}
        if "bf16" in request.precisions and judge:
            approved |= judge.gates(model, "bf16")
        int8 = work / int8_file(out).name
        if calibration is not None:
            gate, notes["int8"] = _make_int8(model, int8, calibration, judge, track)
            # Those of other machines were of other weights.
            kept = {key: value for key, value in approved.items() if not key.split("@")[0].endswith("/int8")}
            approved = kept | gate
        elif there is not None:
            shutil.copyfile(there, int8)
            approved |= judge.gates(int8, "int8") if judge else {}
        return _write(model, int8, out, contract, approved, notes), True


def int8_file(out: Path) -> Path:
    """Where the int8 weights of the model in `out` are written."""
    return out.with_name(f"{out.stem}.int8.onnx")


@contextmanager
def work_folder(out: Path, what: str) -> Iterator[Path]:
    """A hidden folder beside `out` that vanishes with the block; one that a killed run left is emptied first.

    Raises DataError where another run uses it now.
    """
    folder = out.with_name(f".{out.name}.{what}")
    with locked(out.with_name(f"{folder.name}.lock"), out.name):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


def same_model(a: Path, b: Path) -> bool:
    """Whether two files hold the same graph, weights and contract, save for what this module adds to it."""
    if not (a.is_file() and b.is_file()):
        return False
    try:
        one, other = ((content_digest(path), _plain(read_contract(path))) for path in (a, b))
    except MskscreenError:
        return False
    return one == other


def _existing_int8(model: Path, contract: ModelContract) -> Path:
    if "int8" not in contract.variants:
        raise DataError("int8 needs images to calibrate on; name their manifest with --calibration")
    return file_of(contract, model, "int8")


def _judged(request: Request, contract: ModelContract) -> np.ndarray | None:
    """Rows that the gate judges; DataError, before anything is decoded, where they cannot."""
    if request.gate is None:
        return None
    rows = development_rows(request.gate, development_fold(request.gate, contract))
    gates.require_evidence(Truth.of(request.gate, rows), contract.tasks)
    return rows


def _calibration(
    request: Request, judged: np.ndarray | None, contract: ModelContract, work: Path, track: Track
) -> Images | None:
    manifest = request.calibration
    if manifest is None:
        return None
    fold = development_fold(manifest, contract)
    rows = calibration_rows(manifest, request.calibration_images, request.seed, fold)
    if request.gate is not None and judged is not None:
        require_apart(manifest, rows, request.gate, judged)
    return load_images(manifest, rows, contract, work, track("calibration images", len(rows)))


def _judge(
    request: Request, judged: np.ndarray | None, model: Path, contract: ModelContract, work: Path, track: Track
) -> _Judge | None:
    if request.gate is None or judged is None:
        return None
    images = load_images(request.gate, judged, contract, work, track("development images", len(judged)))
    gates.require_evidence(images, contract.tasks)  # of those that could be read
    return _Judge(model, images)


class _Judge:
    """Development images, and what f32 gives for them on each engine of this machine."""

    def __init__(self, model: Path, images: Images) -> None:
        self.images = images
        names: list[Any] = list(BACKENDS)
        self.f32 = {name: open_engine(model, name, "f32", cached=False) for name in names}
        self.reference = {name: gates.scores(engine, images) for name, engine in self.f32.items()}

    def gates(self, model: Path, precision: Any) -> Gates:
        """The gate of a precision on every engine of this machine that computes in it."""
        found = {}
        for name, f32 in self.f32.items():
            if precision not in BACKENDS[name].precisions():
                continue
            fast = open_engine(model, name, precision, unapproved=True, cached=False)
            scores, speed = gates.scores(fast, self.images), gates.relative_speed(f32, fast, self.images)
            outcome = gates.judge(f32.contract, self.images, self.reference[name], scores, speed)
            log.info("%s/%s: %s", name, precision, outcome)
            found[gate_key(name, precision, machine_kind())] = outcome
        return found


def _make_int8(
    model: Path, out: Path, calibration: Images, judge: _Judge | None, track: Track
) -> tuple[Gates, Mapping[str, Any]]:
    """Write int8 weights to `out`; while a gate fails, give more of the most sensitive layers back to f32.

    1, 2, 4, ... layers are tried, up to half of them; the attempt that comes closest to passing is kept.
    """
    advance = track("quantise", 1)
    quantised = Quantised(model, calibration.pixels)
    advance(1)
    contract = replace(_plain(read_contract(model)), precision="int8")
    ranking: list[str] = []
    best: tuple[float, int, Gates] | None = None
    for count in _attempts(len(quantised.layers)):
        if count and not ranking:
            ranking = quantised.ranking()
        _save(quantised.model(ranking[:count]), contract, out)
        if judge is None:
            return {}, _how(quantised, [], calibration)
        found = judge.gates(out, "int8")
        share = max(gates.worst(outcome.measures) for outcome in found.values())
        if best is None or share < best[0]:
            best = share, count, found
        if share <= 1:
            break
    assert best is not None  # noqa: S101 - the first attempt has been judged
    _save(quantised.model(ranking[: best[1]]), contract, out)
    return best[2], _how(quantised, ranking[: best[1]], calibration)


def _attempts(layers: int) -> list[int]:
    """How many layers stay f32: none, then 1, 2, 4, ... up to half of them."""
    return [0, *(1 << power for power in range(layers.bit_length()) if 1 << power <= layers // 2)]


def _how(quantised: Quantised, kept: Sequence[str], calibration: Images) -> dict[str, Any]:
    return {
        "method": "NNCF static int8, one scale a channel, weights of 7 bits",
        "layers": len(quantised.layers),
        "layers_in_f32": list(kept),
        "calibration_images": len(calibration),
        "nncf": importlib.metadata.version("nncf"),
    }


def _save(model: onnx.ModelProto, contract: ModelContract, path: Path) -> None:
    path.write_bytes(model.SerializeToString())
    write_metadata(path, METADATA_KEY, contract.to_json(), path)


def _write(
    model: Path,
    int8: Path,
    out: Path,
    contract: ModelContract,
    approved: Gates,
    notes: Mapping[str, Any],
) -> ModelContract:
    """Put the int8 file in its place first, then the f32 file that names it."""
    protocol = {**contract.provenance.protocol, PROVENANCE_KEY: dict(notes)}
    contract = replace(
        contract,
        schema=SCHEMA,
        approved=approved,
        provenance=replace(contract.provenance, protocol=protocol),
    )
    if int8.is_file():
        complete(int8, replace(contract, precision="int8", variants={}))
        variant = Variant(int8.name, int8.stat().st_size, sha256_of(int8))
        contract = replace(contract, variants={**contract.variants, "int8": variant})
        int8.replace(int8_file(out))
    elif model.parent.resolve() != out.parent.resolve():
        contract = replace(contract, variants={})
    with replacing(out) as partial:
        write_metadata(model, METADATA_KEY, contract.to_json(), partial)
        if not contract.content_sha256 or contract.selftest is None:
            contract = complete(partial, contract)
    return contract


def _plain(contract: ModelContract) -> ModelContract:
    """The contract without what this module writes into it."""
    protocol = {name: value for name, value in contract.provenance.protocol.items() if name != PROVENANCE_KEY}
    return replace(
        contract,
        schema=SCHEMA,
        approved={},
        variants={},
        selftest=None,
        content_sha256="",
        provenance=replace(contract.provenance, protocol=protocol),
    )


def _notes(contract: ModelContract) -> dict[str, Any]:
    """What an earlier run has recorded of how the precisions were made."""
    recorded = contract.provenance.protocol.get(PROVENANCE_KEY)
    return dict(recorded) if isinstance(recorded, Mapping) else {}


def _is_outcome(out: Path, job: str) -> bool:
    """Whether a file is what this job would write, with the files that it names."""
    try:
        contract = read_contract(out)
    except MskscreenError:
        return False
    there = all(
        (file := out.with_name(variant.file)).is_file() and sha256_of(file) == variant.sha256
        for variant in contract.variants.values()
    )
    return _notes(contract).get("job") == job and there
