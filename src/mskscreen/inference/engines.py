"""One small interface over OpenVINO (the default) and ONNX Runtime (the portable engine).

Both run the images of a batch one by one, as many at a time as there are cores: with ResNet-18 and
EfficientNet-Lite0 on 2 cores, OpenVINO gives as many or more images a second so than in batches of 4 or 8.
A batch of eight is thereby exactly eight singles, and a model of fixed batch is no special case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mskscreen.contract import ModelContract
from mskscreen.errors import ModelError, short
from mskscreen.inference.backends import BACKENDS, Backend, Outputs, Shape
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.order import in_order
from mskscreen.inference.precision import Precision as Precision
from mskscreen.inference.precision import choose, sha256_of
from mskscreen.predictions import FLAG_UNAPPROVED

EngineName = Literal["auto", "openvino", "onnxruntime"]


@dataclass(frozen=True)
class Engine:
    """A model ready to run.

    `name` is `openvino` or `onnxruntime`, `precision` what it computes in and `why` the reason in words; `path`
    is the file with the weights and `digest` its SHA-256. `flags` belong in every row that it scores. It runs in
    the `process` that opened it alone: one forked from there has none of the engine's threads. `address` is that
    of a model on a server, which a path cannot hold: it makes one slash of two.
    """

    name: str
    precision: str
    contract: ModelContract
    path: Path
    digest: str
    backend: Backend
    why: str = ""
    flags: tuple[str, ...] = ()
    process: int = field(default_factory=os.getpid)
    address: str = ""

    @property
    def where(self) -> str:
        """The model's file or address, for messages."""
        return self.address or str(self.path)

    @property
    def unit(self) -> int:
        """Images in one run of the model: its fixed batch, else 1."""
        return self.contract.batch or 1

    @property
    def fixed_batch(self) -> int | None:
        """The only batch that the graph takes, or None; a contract may leave out that it is 1."""
        (shape,) = self.backend.inputs.values()
        return self.contract.batch or (shape[0] if shape else None)

    @property
    def depth(self) -> int:
        """How many runs should be under way so that no core waits for the next."""
        return 2 * self.backend.parallel

    def start(self, images: np.ndarray) -> Callable[[], Outputs]:
        """Begin a run on (b, 1, H, W) float32 in [0, 1] with 1 <= b <= `unit`; the call returned waits for it.

        It gives `pred1` (b, 2), `pred2` (b, 7) and, where the contract has them, `map` (b, 1, h, w) and
        `novelty` (b,). Raises ModelError.
        """
        if os.getpid() != self.process:
            raise ModelError(f"{self.where}: was opened in another process; open it in each one after its start")
        expected = (self.unit, 1, *self.contract.input_size)
        if images.ndim != 4 or images.shape[1:] != expected[1:] or not 1 <= len(images) <= self.unit:
            raise ModelError(f"{self.where}: expected images of shape {expected}, found {images.shape}")
        batch = np.zeros(expected, np.float32)
        batch[: len(images)] = images
        finish = self.backend.start(batch)
        return lambda: self._checked(finish(), len(images))

    def run(self, batch: np.ndarray) -> Outputs:
        """Outputs for a batch (B, 1, H, W) of any size B >= 1: see `start`."""
        pieces = [batch[i : i + self.unit] for i in range(0, max(len(batch), 1), self.unit)]
        results = list(in_order(pieces, self.start, self.depth))
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}

    def _checked(self, outputs: Outputs, count: int) -> Outputs:
        """The first `count` rows of what contract and model promise; dynamic shapes can be checked only here.

        A map has a cell or more, and no more of them than the input has pixels.
        """
        expected = expected_outputs(self.contract)
        for name, shape in expected.items():
            what, found = f"output '{name}'", outputs[name].shape
            _check(self.where, what, found, (self.unit, *shape))
            if (told := self.backend.outputs[name]) is not None:
                _check(self.where, what, found, told)
            sizes = zip(found[2:], self.contract.input_size, strict=True) if name == "map" else ()
            if not all(1 <= cells <= pixels for cells, pixels in sizes):
                most = _text((self.unit, 1, *self.contract.input_size))
                raise ModelError(f"{self.where}: {what} has shape {_text(found)}, expected at most {most}")
        return {name: outputs[name][:count] for name in expected}


def open_engine(
    path: Path | str,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    *,
    unapproved: bool = False,
    cached: bool = True,
) -> Engine:
    """Open a self-contained ONNX file that carries a contract, or has one in a TOML file beside it.

    The engine `auto` is OpenVINO where it can be loaded. The precision `auto` is the fastest whose gate passed
    on this kind of machine; one without a passed gate is refused, save with `unapproved`, which flags every row
    (see `precision.choose`). `threads` defaults to `cores()`; `cached` keeps what OpenVINO compiles for next time.

    Raises ModelError, ContractError.
    """
    path = Path(path)
    contract = read_contract(path)
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        raise ModelError(f"{path}: its name is not in UTF-8, which the engines ask for; rename it")
    name = _loadable(engine)
    kind = BACKENDS[name]
    choice = choose(contract, path, name, precision, kind.precisions(), unapproved=unapproved)
    digest = sha256_of(choice.path)
    backend = kind(choice.path, digest if cached else None, choice.precision, threads or cores())
    check_ports(choice.path, contract, backend, backend.types)
    flags = () if choice.approved else (FLAG_UNAPPROVED,)
    return Engine(name, choice.precision, contract, choice.path, digest, backend, choice.why, flags)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _loadable(engine: EngineName) -> str:
    if engine not in ("auto", *BACKENDS):
        raise ModelError(f"engine '{engine}' is unknown; use auto, {', '.join(BACKENDS)}")
    for name in BACKENDS if engine == "auto" else (engine,):
        try:
            __import__(name)
        except ImportError as error:
            reason = error
        else:
            return name
    raise ModelError(f"the engine {name} cannot be loaded ({reason}); choose another with --engine")


def check_ports(
    path: Path | str, contract: ModelContract, backend: Backend, types: Mapping[str, str] | None = None
) -> None:
    """Refuse a model whose ports are not those of its contract. Raises ModelError.

    All of them hold `f32` by `types`, which a server is not asked for: it refuses other numbers itself. OpenVINO
    would make whole numbers of an image in [0, 1], and so a black image.
    """
    if len(backend.inputs) != 1:
        raise ModelError(
            f"{path}: expected one input, found {len(backend.inputs)} ({short(', '.join(backend.inputs))})"
        )
    batch = contract.batch or 1
    for name, shape in backend.inputs.items():
        _check(path, f"input '{short(name)}'", shape, (batch, 1, *contract.input_size))
    for name, shape in expected_outputs(contract).items():
        if name not in backend.outputs:
            raise ModelError(f"{path}: has no output '{name}', only {short(', '.join(backend.outputs))}")
        _check(path, f"output '{name}'", backend.outputs[name], (batch, *shape))
    for name in (*backend.inputs, *expected_outputs(contract)):
        if (kind := (types or {}).get(name, "f32")) != "f32":
            raise ModelError(f"{path}: '{short(name)}' holds {kind}, expected f32; export the model again")


def expected_outputs(contract: ModelContract) -> dict[str, tuple[int | None, ...]]:
    """Outputs and their shapes without the batch."""
    expected: dict[str, tuple[int | None, ...]] = {"pred1": (2,), "pred2": (7,)}
    if contract.map:
        expected["map"] = (1, None, None)
    if contract.novelty:
        expected["novelty"] = ()
    return expected


def _check(path: Path | str, what: str, found: Shape, expected: tuple[int | None, ...]) -> None:
    """Raise ModelError where two shapes contradict each other; None agrees with everything."""
    if found is None:
        return
    same = len(found) == len(expected)
    if not same or any(None not in pair and pair[0] != pair[1] for pair in zip(found, expected, strict=True)):
        raise ModelError(f"{path}: {what} has shape {_text(found)}, expected {_text(expected)}")


def _text(shape: tuple[int | None, ...]) -> str:
    return short("(" + ", ".join("?" if size is None else str(size) for size in shape) + ")")
