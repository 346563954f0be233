"""Whether a model file is what it says it is, and in what two model files differ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mskscreen.contract import METADATA_KEY, TASKS, ModelContract
from mskscreen.errors import MskscreenError, short
from mskscreen.inference import selftest
from mskscreen.inference.backends import BACKENDS
from mskscreen.inference.catalogue import published_as, read_contract
from mskscreen.inference.engines import Engine, open_engine
from mskscreen.inference.onnx_file import content_digest, read_metadata
from mskscreen.inference.precision import file_of, sha256_of
from mskscreen.inference.screener import preprocessing_of
from mskscreen.predictions import softmax

OK, FAILED, ABSENT = "ok", "failed", "not recorded"


class Check(NamedTuple):
    """One thing that was checked, `ok`, `failed` or `not recorded`, and what was found."""

    check: str
    outcome: str
    found: str


class Difference(NamedTuple):
    """A field in which two contracts differ, or a measure of how far two models' outputs lie apart."""

    field: str
    a: Any
    b: Any


def describe(path: Path) -> list[tuple[str, Any]]:
    """What is to be known of a model file: its contract field by field, digests, inputs and outputs.

    Raises ModelError, ContractError.
    """
    contract = read_contract(path)
    backend = open_as_filed(path, contract, "onnxruntime").backend
    rows = [("file", str(path)), ("bytes", path.stat().st_size), ("sha256", sha256_of(path))]
    rows += [("contract sha256", contract.digest), ("content sha256", content_digest(path))]
    for kind, ports in (("input", backend.inputs), ("output", backend.outputs)):
        for name, shape in ports.items():
            text = "?" if shape is None else " x ".join("?" if side is None else str(side) for side in shape)
            rows.append((f"{kind} {name}", text))
    return rows + [
        (name, value) for name, value in _fields(contract).items() if not name.startswith("selftest.outputs")
    ]


def verify(path: Path) -> list[Check]:
    """Check schema and preprocessing of the contract, digest, files beside it, and the self-test on each engine.

    Raises ModelError or ContractError where the file holds no model or no contract that can be read.
    """
    contract = read_contract(path)
    checks = [
        Check("schema", OK, f"schema {contract.schema}, {contract.title}"),
        _attempt("preprocessing", lambda: str(preprocessing_of(contract))),
        _content(path, contract),
    ]
    checks += [_variant(path, contract, precision) for precision in contract.variants]
    return checks + [_self_test(path, contract, engine) for engine in BACKENDS]


def _variant(path: Path, contract: ModelContract, precision: str) -> Check:
    return _attempt(
        f"file of {precision}", lambda: f"digest and contract of {file_of(contract, path, precision).name}"
    )


def _attempt(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, OK, find())
    except MskscreenError as error:
        return Check(name, FAILED, str(error))


def _content(path: Path, contract: ModelContract) -> Check:
    if not contract.content_sha256:
        if METADATA_KEY in read_metadata(path):
            return Check("digest", ABSENT, "the contract was written before digests were")
        if known := published_as(path):
            return Check("digest", OK, f"SHA-256 of the published {known.file}")
        return Check("digest", ABSENT, f"{path.with_suffix('.toml').name} describes the file and holds no digest")
    found = content_digest(path)
    same = found == contract.content_sha256
    return Check("digest", OK if same else FAILED, f"SHA-256 of graph and weights {found[:16]}")


def _self_test(path: Path, contract: ModelContract, engine: str) -> Check:
    name = f"self-test, {engine}"
    try:
        opened = open_as_filed(path, contract, engine)
        if contract.selftest is None:
            return Check(name, ABSENT, "the contract holds no self-test")
        if contract.selftest.image != selftest.IMAGE:
            return Check(name, ABSENT, f"image '{short(contract.selftest.image)}' is not known to this version")
        found = selftest.deviations(opened, contract.selftest)
    except MskscreenError as error:
        return Check(name, FAILED, str(error))
    limit = selftest.TOLERANCE[contract.precision]
    worst = max(found.values(), default=float("inf"))
    text = ", ".join(f"{output} {value:.2g}" for output, value in found.items())
    return Check(name, OK if worst <= limit else FAILED, f"relative difference {text} (limit {limit:g})")


def open_as_filed(path: Path, contract: ModelContract, engine: Any) -> Engine:
    """The model in the precision of its file."""
    precision: Any = contract.precision
    return open_engine(path, engine, precision, unapproved=True, cached=False)


def compare(a: Path, b: Path) -> list[Difference]:
    """Fields in which the contracts differ, then how far the outputs for the self-test image lie apart.

    Each model runs on ONNX Runtime in the precision of its file. Raises ModelError, ContractError.
    """
    contracts = [read_contract(path) for path in (a, b)]
    one, other = map(_fields, contracts)
    fields = sorted(name for name in one.keys() | other.keys() if not name.startswith("selftest."))
    found = [
        Difference(name, one.get(name), other.get(name)) for name in fields if one.get(name) != other.get(name)
    ]
    found += [Difference("bytes", *(path.stat().st_size for path in (a, b)))]
    results = []
    for path, contract in zip((a, b), contracts, strict=True):
        image = selftest.self_test_image(*contract.input_size)
        results.append(open_as_filed(path, contract, "onnxruntime").run(image))
    temperatures = [dataclasses.astuple(contract.calibration) for contract in contracts]
    for task, label in enumerate(("p_abnormal", "p_joint")):
        if not all(TASKS[task] in contract.tasks for contract in contracts):
            continue
        p, q = (
            softmax(result[f"pred{task + 1}"][0], temperature[task])
            for result, temperature in zip(results, temperatures, strict=True)
        )
        shown = (p[1], q[1]) if task == 0 else (p.max(), q.max())
        found.append(Difference(f"self-test image: {label}", *map(float, shown)))
    maps = [result["map"].ravel() for result in results if "map" in result]
    if len(maps) == 2 and maps[0].shape == maps[1].shape and all(np.ptp(values) > 0 for values in maps):
        found.append(
            Difference("self-test image: correlation of maps", 1.0, float(np.corrcoef(maps[0], maps[1])[0, 1]))
        )
    return found


def _fields(contract: ModelContract) -> dict[str, Any]:
    """The fields of a contract by their full names, without the marks of the images that it was calibrated on."""
    found = {"precision": contract.precision} | dict(_flat(json.loads(contract.to_json())))
    found.pop("provenance.protocol.calibration.images", None)
    return found


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item
