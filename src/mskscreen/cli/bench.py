"""The verb `bench`: what this machine gives with each model, engine, precision and batch."""

from __future__ import annotations

import functools
import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mskscreen.cli.common import Exit, Format, alarm, err, needs
from mskscreen.errors import one_line

if TYPE_CHECKING:
    from mskscreen.inference import Engine


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="ONNX files, bundled models, or networks (resnet18, ...) with random weights; else demo."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8",
    seconds: Annotated[float, typer.Option(min=0.01, help="How long each figure is measured.")] = 2.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default one a core.")] = None,
    form: Annotated[
        Format, typer.Option("--format", help="table is Markdown, ready for an issue.")
    ] = Format.TABLE,
) -> None:
    """Measure images a second of models on this machine, and the share of its GEMM peak that they reach.

    Each precision is measured whether or not the model is approved for it: nothing is screened. Leave the machine
    alone meanwhile. Exit code 3 says that some models could not be measured.
    """
    try:
        batches = [int(size) for size in batch.split(",")]
    except ValueError:
        batches = [0]
    if min(batches) < 1:
        raise typer.BadParameter("name whole numbers from 1, separated by commas", param_hint="--batch")

    from mskscreen.errors import ModelError, MskscreenError
    from mskscreen.inference.engines import cores
    from mskscreen.inference.machine import machine_kind

    count = threads or cores()
    rows: list[dict[str, Any]] = []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in models or ["demo"]:
            try:
                for path in _files(name, Path(folder)):
                    before = len(rows)
                    rows.extend(_measure(path, batches, seconds, count))
                    if len(rows) == before:
                        raise ModelError(f"{path}: no engine could run it; mskscreen -v bench says why")
            except MskscreenError as error:
                failed = True
                alarm.print(f"error: {error}")
    if not rows:
        raise typer.Exit(Exit.FAILURE)
    if form is Format.JSON:
        print(json.dumps(rows, indent=1))
    else:
        print(
            f"{machine_kind()}, {count} threads, load average {os.getloadavg()[0]:.1f}, {platform.platform()}, "
            f"{_versions()}\n"
        )
        print("\n".join(_markdown(rows)))
    if failed:
        raise typer.Exit(Exit.SOME_FAILED)


def _measure(path: Path, batches: list[int], seconds: float, threads: int) -> Iterator[dict[str, Any]]:
    from mskscreen.inference.speed import gemm_peak, images_a_second, latency, operations

    count = functools.cache(operations)  # once, and only for a file that an engine has opened
    for engine in _engines(path, threads):
        work = count(path)
        peak = gemm_peak(engine.precision, threads, seconds)
        one = latency(engine, seconds)
        for size in [engine.fixed_batch] if engine.fixed_batch else batches:
            with err.status(f"{path.stem} {engine.name} {engine.precision} batch {size}"):
                speed = images_a_second(engine, size, seconds)
            yield {
                "model": engine.contract.name,
                "engine": engine.name,
                "precision": engine.precision,
                "batch": size,
                "images/s": round(speed, 1),
                "ms for one": round(1000 * one, 2),
                "GFLOP an image": round(work / 1e9, 2),
                "GEMM peak, GFLOP/s": round(peak / 1e9, 1),
                "share of peak": round(speed * work / peak, 3),
            }


def _engines(path: Path, threads: int) -> Iterator[Engine]:
    """The model on every engine in every precision that this machine and the model's files have.

    Raises ModelError, ContractError where the file holds no model or no contract.
    """
    from mskscreen.errors import MskscreenError
    from mskscreen.inference import open_engine
    from mskscreen.inference.backends import BACKENDS
    from mskscreen.inference.catalogue import read_contract

    read_contract(path)
    for name, kind in BACKENDS.items():
        for precision in sorted(kind.precisions(), reverse=True):
            engine: Any = name
            wanted: Any = precision
            try:
                yield open_engine(path, engine, wanted, threads, unapproved=True, cached=False)
            except MskscreenError as error:
                logging.getLogger(__name__).info("not measured: %s", error)


def _files(name: str, folder: Path) -> list[Path]:
    """A model by file or name, or a network of that name with random weights, of f32 and of int8."""
    from mskscreen.errors import ModelError
    from mskscreen.inference.catalogue import model_path

    try:
        return [model_path(name)]
    except ModelError as unknown:
        with needs("train"):
            from mskscreen.contract import ModelContract
            from mskscreen.export import export_onnx
            from mskscreen.export.quantise import quantise_on_noise
            from mskscreen.networks import NETWORKS, build_network
        if name not in NETWORKS:
            raise ModelError(f"{unknown}, nor a network ({', '.join(NETWORKS)})") from unknown
    size = NETWORKS[name].input_size
    steps = f"decode|grayscale|window(auto)|resize({size},{size},bilinear,antialias)|unit"
    path = folder / f"{name}.onnx"
    with err.status(f"exporting {name}"):
        export_onnx(build_network(name).eval(), ModelContract(name, name, steps, (size, size)), path)
        return [path, quantise_on_noise(path, path.with_suffix(".int8.onnx"))]


def _versions() -> str:
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("mskscreen", "openvino", "onnxruntime"))


def _markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A table that is read as it stands and that an issue shows as one."""
    columns = list(rows[0]) if rows else []
    lines = [columns, *([one_line(str(row[column])) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        yield "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        if number == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
