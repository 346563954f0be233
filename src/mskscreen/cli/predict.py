"""`mskscreen predict`: screen files, folders and lists of them, and print or write the predictions table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.cli.common import MaxPixels, limits_of
from mskscreen.cli.files import find_files
from mskscreen.cli.screening import Run
from mskscreen.errors import short

if TYPE_CHECKING:
    from mskscreen.contract import ModelContract
    from mskscreen.inference import Screened, Screener
    from mskscreen.inference.ensemble import Ensemble
    from mskscreen.inference.journal import Job, Stream
    from mskscreen.predictions import Prediction


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES",
            help="Files, folders (searched to the bottom), glob patterns, manifests, or - for a list on stdin.",
        ),
    ],
    model: Annotated[
        list[str],
        typer.Option(
            help="An ONNX file, the name of a model, or its address on a server; repeat to average several."
        ),
    ] = ["demo"],  # noqa: B006 - typer copies it
    at: Annotated[
        str, typer.Option(help="Operating point of the model: balanced, sensitive or specific.")
    ] = "balanced",
    study_by: Annotated[
        Literal["auto", "folder", "none"],
        typer.Option(
            help="What makes a study: auto is the DICOM study or MURA folder, else each image alone; folder is "
            "the folder that holds it; none is each image alone."
        ),
    ] = "auto",
    form: Annotated[
        Literal["table", "json", "jsonl", "csv", "parquet"] | None,
        typer.Option("--format", help="How to print; by default a table. With --output its suffix says it."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file. A run that was stopped goes on where it was."),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for pictures of where the model saw evidence of abnormality."),
    ] = None,
    engine: Annotated[
        Literal["auto", "openvino", "onnxruntime"], typer.Option(help="What runs the model.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "f32", "bf16", "int8"],
        typer.Option(help="auto is the fastest that passed the model's gate on this kind of machine."),
    ] = "auto",
    force_precision: Annotated[
        bool, typer.Option("--force-precision", help="Use --precision even if its gate failed; flags every row.")
    ] = False,
    contract: Annotated[
        str | None,
        typer.Option(
            help="Contract of a model on a server that holds none: the ONNX file, a bundled name, or a TOML file."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode images; by default one a core.")
    ] = None,
    reading: Annotated[
        Literal["whole", "safe", "fast"],
        typer.Option(
            help="How finely large JPEG 2000 and JPEG images are read; below whole a probability may move."
        ),
    ] = "whole",
    max_pixels: MaxPixels = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an --output that holds predictions of other images.")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Share the work out on the Ray cluster at $RAY_ADDRESS, else one here.")
    ] = False,
) -> None:
    """Screen radiographs: which joint, how likely abnormal.

    Exit code 0 says that every image was scored, 3 that some could not be: their rows say why.
    """
    _check_format(form, output)
    if maps and len(model) > 1:
        raise typer.BadParameter("an ensemble has no evidence map; name one --model, or leave out --maps")
    if contract and len(model) > 1:
        raise typer.BadParameter("--contract goes with one --model")
    if ray and (maps or contract or workers or len(model) > 1):
        raise typer.BadParameter("--ray goes with one --model and without --maps, --contract and --workers")
    files = find_files(sources, maps)
    if output and not overwrite:
        _check_output(output, files)

    from mskscreen.cli.predictions import show_predictions
    from mskscreen.inference.ensemble import Ensemble
    from mskscreen.pixels.memory import keep_freed_memory
    from mskscreen.predictions import Predictions, render

    keep_freed_memory()
    limits = limits_of(max_pixels)
    if force_precision and precision == "auto":
        _check_forced(model)
    how = {"engine": engine, "precision": precision, "unapproved": force_precision, "reading": reading}
    screener, threshold = _open(model, contract, at, limits=limits, **how)
    about = screener.describe(at)
    inspect = _drawing(screener, maps) if maps and not isinstance(screener, Ensemble) else None

    def stream(paths: Sequence[Path]) -> Generator[Prediction]:
        if ray:
            return _on_ray(paths, model[0], about, study_by=study_by, limits=limits, unapproved=force_precision)
        if isinstance(screener, Ensemble):
            return screener.stream(paths, at=at, study_by=study_by, workers=workers)
        return screener.stream(paths, at=at, study_by=study_by, workers=workers, inspect=inspect)

    run = Run(len(files))
    if output:
        job = {**about, "threshold": threshold, "study_by": study_by, "maps": maps and str(maps)}
        if max_pixels:
            job["max_pixels"] = max_pixels
        _write(run, output, files, stream, job, maps)
    elif form in (None, "table"):
        show_predictions(Predictions(tuple(run.watch(stream(files))), about, threshold))
    else:
        for piece in render(form or "", run.watch(stream(files)), about, threshold):
            sys.stdout.write(piece)
            sys.stdout.flush()
        common.err.print(f"{NOT_FOR_DIAGNOSIS.capitalize()}.")
    if maps:
        common.say_burned_in(run.burned_in)
    raise typer.Exit(run.report())


def _on_ray(*files_and_model: Any, **how: Any) -> Generator[Prediction]:
    """Rows from the cluster: see `stream_on_ray`, which imports Ray when it is asked for the first one."""
    with common.needs("cluster"):
        from mskscreen.inference.cluster import stream_on_ray

        yield from stream_on_ray(*files_and_model, **how)


def _open(models: list[str], contract: str | None, at: str, **how: Any) -> tuple[Screener | Ensemble, float]:
    """The model, or several as one, and the threshold of its operating point `at`; says what computes it."""
    from mskscreen.inference import Screener
    from mskscreen.inference.ensemble import Ensemble

    found: Screener | Ensemble
    points: Mapping[str, float]
    if len(models) > 1:
        ensemble = Ensemble.load(models, **how)
        found, members, points = ensemble, ensemble.screeners, ensemble.operating_points
    else:
        screener = Screener.load(models[0], contract=_contract(contract) if contract else None, **how)
        found, members, points = screener, [screener], screener.engine.contract.operating_points
    if at not in points:
        raise typer.BadParameter(
            f"model '{', '.join(models)}' has no operating point '{at}'; it has {short(', '.join(points))}"
        )
    for used in (each.engine for each in members):
        name = short(used.contract.name)
        common.err.print(f"model {name}: {used.name}/{used.precision} ({used.why})")
        # Such as that one of its outputs was never trained, or that it has never seen a patient.
        if notes := used.contract.provenance.notes:
            common.err.print(f"model {name}: {short(notes, 1000)}")
    return found, points[at]


def _check_forced(models: list[str]) -> None:
    """Refuse --force-precision alone for a file that holds several precisions: it would not say which."""
    from mskscreen.errors import ModelError
    from mskscreen.inference.catalogue import model_path, on_server, read_contract
    from mskscreen.inference.precision import to_force

    for name in (name for name in models if not on_server(name)):
        contract = read_contract(model_path(name))
        try:
            to_force(contract, name)
        except ModelError as error:
            raise typer.BadParameter(str(error), param_hint="--force-precision") from error


def _contract(path_or_name: str) -> ModelContract:
    from mskscreen.inference.catalogue import described_by, model_path, read_contract

    path = model_path(path_or_name)
    return read_contract(path) if path.suffix == ".onnx" else described_by(path)


def _check_output(output: Path, files: Sequence[Path]) -> None:
    from mskscreen.errors import DataError
    from mskscreen.inference.journal import check_replaceable

    try:
        check_replaceable(output, files)
    except DataError as error:
        raise typer.BadParameter(str(error), param_hint="--output") from error


def _check_format(form: str | None, output: Path | None) -> None:
    from mskscreen.errors import DataError
    from mskscreen.predictions import table_format

    if output:
        try:
            found = table_format(output)
        except DataError as error:
            raise typer.BadParameter(str(error), param_hint="--output") from error
        if form not in (None, found):
            raise typer.BadParameter(f"--output ends in .{found}, --format says {form}: leave out one of them")
        form = found
    elif form == "parquet":
        raise typer.BadParameter("parquet cannot be printed; name a file with --output")
    if form == "parquet":
        with common.needs("data"):
            import pyarrow  # noqa: F401


def _drawing(screener: Screener, folder: Path) -> Callable[[Screened], None]:
    from mskscreen.errors import ModelError
    from mskscreen.pixels import displayed
    from mskscreen.saliency.overlay import draw_overlay, said
    from mskscreen.saliency.target import ABNORMAL, require_learned
    from mskscreen.storage import replacing

    contract = screener.engine.contract
    if contract.map is None:
        raise typer.BadParameter(f"{contract.title} has no evidence map; leave out --maps")
    try:
        require_learned(contract, ABNORMAL)
    except ModelError as error:
        raise typer.BadParameter(str(error), param_hint="--maps") from error
    folder.mkdir(parents=True, exist_ok=True)

    def draw(image: Screened) -> None:
        if image.radiograph is None or image.evidence is None:
            return
        pixels = displayed(image.radiograph)
        evidence = screener.preprocessing.geometry(*pixels.shape).map_to_source(image.evidence)
        row = image.prediction
        what = said(row.joint, row.p_abnormal, row.abnormal)
        caption = f"{Path(row.file).name}: {what} (model {short(contract.name)})"
        picture = draw_overlay(pixels, evidence, caption, spacing=image.radiograph.spacing)
        with replacing(_picture(folder, row.file)) as partial:
            picture.save(partial, compress_level=1)

    return draw


def _picture(folder: Path, file: str) -> Path:
    from mskscreen.mura_path import unlabelled
    from mskscreen.saliency.overlay import overlay_name

    return folder / overlay_name(unlabelled(file), file)


def _write(run: Run, output: Path, files: Sequence[Path], stream: Stream, job: Job, maps: Path | None) -> None:
    from mskscreen.inference.journal import finished, write_resumable

    def whole(file: str) -> bool:
        return maps is None or _picture(maps, file).is_file()

    table = finished(output, files, job, whole)
    if table:
        common.err.print(f"{output}: is finished already; nothing to do")
    for _ in run.watch(iter(table or write_resumable(output, files, stream, job, whole))):
        pass
    if not run.stopped:
        common.err.print(f"{output}: {run.done} images, {run.failed} with an error; {NOT_FOR_DIAGNOSIS}")
