"""One training run: a folder that ends with a model, or goes on where it was stopped.

    result = train(Path("folds.parquet"), Protocol.from_toml("paper.toml"), Path("runs/x"))

Several GPUs or machines are Lightning's: `lightning={"devices": 4, "num_nodes": 2, "strategy": "ddp"}`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError, ProtocolError, short
from mskscreen.inference.engines import cores
from mskscreen.lock import locked
from mskscreen.networks.complexity import measure
from mskscreen.storage import cache_folder, write_text
from mskscreen.training.course import DONE, Progress, Run, RunResult
from mskscreen.training.learner import begin, precision
from mskscreen.training.material import gather, preprocessing, read_data
from mskscreen.training.protocol import BEST, Protocol
from mskscreen.training.state import FILE, read_position, require_same, writing

__all__ = ["Progress", "RunResult", "train"]

PROTOCOL = "protocol.toml"
STRATEGIES = ("auto", "ddp")
_PRECISIONS: dict[str, Any] = {"bf16": "bf16-mixed", "f32": "32-true"}


class _StoppedError(Exception):
    """Asked to stop while images were decoded; those that were finished are kept."""


def train(
    data: Path,
    protocol: Protocol,
    out: Path,
    *,
    cache: Path | None = None,
    workers: int = 0,
    lightning: Mapping[str, Any] | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    decoded: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Train on a manifest with folds (or a folder of images, which is indexed and split), into the folder `out`.

    `out` holds protocol.toml, best.safetensors and last.safetensors with their contracts, metrics.csv (a row an
    epoch), development.parquet (predictions of the best weights on the development fold), curves.png, a folder of
    logs, and in the end done.json with `metrics`, `cost`, `protocol` (digest) and `data` (digest). A run that was
    killed goes on where it was; a finished one is returned as it is. `stop` is asked before every step: where it
    says yes the run saves itself and returns unfinished. `cache` is the folder of decoded images, `workers` the
    processes that read them; `lightning` holds `accelerator`, `devices`, `num_nodes` and `strategy` (auto, ddp) of
    Fabric. Several machines need an `out` that they share.
    `decoded` is told how many images were decoded.

    Raises ProtocolError, DataError, and ModelError where the architecture wants a larger input or weights cannot
    be had, in one sentence: what can be known without the pixels is told before an image is decoded.
    """

    def advance(count: int) -> None:
        decoded(count)
        if stop():
            raise _StoppedError

    manifest = read_data(data, protocol)
    alone = (lightning or {}).get("num_nodes", 1) == 1
    if alone and (out / DONE).is_file():
        return _finished(out, protocol, manifest)
    shown = preprocessing(protocol)
    measure(protocol.architecture, (shown.height, shown.width))
    # Its notices say what the protocol says.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fabric = _fabric(protocol, lightning or {})
    fabric.launch()
    if not alone:
        # A machine that does not see it would wait for the others.
        require_same(fabric, out, (out / DONE).is_file())
        if (out / DONE).is_file():
            return replace(_finished(out, protocol, manifest), first=fabric.is_global_zero)
    begun = begin(protocol, manifest, saved=read_position(out) is not None)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out / "run.lock", "this run") if fabric.is_global_zero else nullcontext():
        if alone and (out / DONE).is_file():
            # Another process ended it meanwhile.
            return _finished(out, protocol, manifest)
        _claim(out, protocol)
        try:
            material = gather(
                manifest,
                protocol,
                cache or cache_folder() / "pixels",
                decoders=os.cpu_count() or 1,
                rank=fabric.global_rank,
                ranks=fabric.world_size,
                decoded=advance,
            )
        except _StoppedError:
            return RunResult(out, finished=False)
        return Run(out, protocol, manifest, begun, material, fabric, workers, report, stop).go()


def _finished(out: Path, protocol: Protocol, manifest: Manifest) -> RunResult:
    """What a finished run left.

    Raises ProtocolError where it is the run of another protocol or of other data.
    """
    try:
        done = json.loads((out / DONE).read_text(encoding="utf-8"))
        same = {"protocol": protocol.digest, "data": manifest.digest}
        other = next((name for name, digest in same.items() if done[name] != digest), None)
        metrics, cost, notes = dict(done["metrics"]), dict(done["cost"]), tuple(done["notes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{out / DONE}: is not the end of a run; choose another folder with --out") from error
    if other:
        if (out / PROTOCOL).is_file():
            _require_protocol(out, protocol)
        raise ProtocolError(f"{out}: holds a finished run of other {other}; choose another folder with --out")
    # Left where the run was killed at its very end.
    (out / FILE).unlink(missing_ok=True)
    return RunResult(out, finished=True, already=True, metrics=metrics, cost=cost, notes=notes)


def _fabric(protocol: Protocol, options: Mapping[str, Any]) -> Fabric:
    """Lightning's Fabric for the precision of a protocol.

    Raises ProtocolError where this machine has no such accelerator, devices or strategy.
    """
    options = {"accelerator": "auto", "devices": 1, **options}
    given = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    cuda = options["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    strategy = options.get("strategy", "auto")
    if strategy not in STRATEGIES:
        # Others share out the weights of the network, or cannot start processes for a function that runs already.
        raise ProtocolError(f"option --strategy {strategy}: a run knows {' and '.join(STRATEGIES)}")
    if strategy == "ddp" or options["devices"] != 1 or options.get("num_nodes", 1) != 1:
        # An output that is not learned, and modules while they are frozen, get no gradient.
        options["strategy"] = "ddp_find_unused_parameters_true"
    try:
        fabric = Fabric(**options, precision=_PRECISIONS[precision(protocol, cuda=cuda)])
    except Exception as error:  # Lightning refuses its options with errors of many kinds
        reason = str(error).partition(". ")[0].rstrip(".")
        raise ProtocolError(
            f"Lightning refuses {given} on this machine ({reason}); leave these options out to train on one device"
        ) from error
    devices = len(getattr(fabric.strategy, "parallel_devices", None) or ())
    if fabric.device.type == "cpu" and devices > cores():
        raise ProtocolError(
            f"option --devices: {devices} processes on {cores()} processor cores; ask for at most as many as cores"
        )
    return fabric


def _claim(out: Path, protocol: Protocol) -> None:
    """Write the protocol into the folder, also over that of a run of which nothing was saved.

    Raises ProtocolError where the folder is that of another one.
    """
    path = out / PROTOCOL
    if path.is_file() and any((out / name).exists() for name in (FILE, BEST, DONE)):
        _require_protocol(out, protocol)
    else:
        with writing(out):
            write_text(path, protocol.to_toml())


def _require_protocol(out: Path, protocol: Protocol) -> None:
    """Raise ProtocolError that names the first key in which the run in `out` has another value."""
    mine, theirs = asdict(protocol), asdict(Protocol.from_toml(out / PROTOCOL))
    if name := next((name for name, value in mine.items() if theirs[name] != value), None):
        raise ProtocolError(
            f"{out}: holds a run whose key {name} is '{short(theirs[name])}', not '{mine[name]}'; "
            "choose another folder with --out"
        )
