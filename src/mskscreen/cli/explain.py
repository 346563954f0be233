"""`mskscreen explain`: maps of what a model used, and how much they can be believed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.cli.files import find_files
from mskscreen.errors import DataError

if TYPE_CHECKING:
    from mskscreen.inference import Screener
    from mskscreen.saliency.maps import MapRecord


app = typer.Typer(
    cls=common.group_with("files"),
    no_args_is_help=True,
    help="Show what a model used, and measure such maps: mskscreen explain FILES --out DIR [--method METHOD] "
    "[--of CLASS] [--model MODEL] is short for explain files, whose --help tells all options. "
    f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
)
_METHODS = ("hirescam", "gradcam", "cam", "rise", "occlusion", "integrated-gradients")
Method = StrEnum("Method", {name: name for name in _METHODS})  # type: ignore[misc]
# The options that only one method heeds.
_OPTIONS = {
    "rise": ("passes", "cells", "converged", "fine", "seed"),
    "occlusion": ("patches",),
    "integrated-gradients": ("checkpoint",),
}
Models = Annotated[list[str], typer.Option("--model", help="An ONNX file, or the name of a model.")]


@app.command()
def files(
    context: typer.Context,
    sources: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Files, folders, glob patterns, or - for a list on stdin.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for maps, overlays and records.")],
    method: Annotated[
        list[Method] | None,
        typer.Option(help="How to explain, by default hirescam; repeat for several side by side."),
    ] = None,
    of: Annotated[
        str, typer.Option(help="The class to explain: abnormal, joint (the predicted one), wrist, ...")
    ] = ("abnormal"),
    models: Models = ["demo"],  # noqa: B006 - typer copies it
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint of the model, for integrated-gradients.", exists=True)
    ] = None,
    at: Annotated[str, typer.Option(help="Operating point that says what is abnormal.")] = "balanced",
    normal: Annotated[bool, typer.Option("--normal", help="Also explain images called normal.")] = False,
    raw: Annotated[Literal["png", "npy"], typer.Option(help="Raw maps as 16-bit PNG or as NumPy file.")] = "png",
    layout: Annotated[
        Literal["side-by-side", "overlay"],
        typer.Option(help="The radiograph and all methods on one page, or each overlay alone."),
    ] = "side-by-side",
    sheet: Annotated[bool, typer.Option("--sheet", help="Also all overlays on contact sheets.")] = False,
    passes: Annotated[
        int,
        typer.Option(min=2, help="RISE: most forward passes for an image, rounded up to blocks of 128 (7 cells)."),
    ] = 4096,
    cells: Annotated[int, typer.Option(min=2, max=63, help="RISE: cells of the mask's grid a side.")] = 7,
    converged: Annotated[
        float, typer.Option(min=0, help="RISE: stop at this standard error, as a share of the map's peak.")
    ] = 0.1,
    fine: Annotated[bool, typer.Option("--fine", help="RISE: from coarse to fine.")] = False,
    patches: Annotated[int, typer.Option(min=2, max=64, help="Occlusion: patches a side.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random masks.")] = 0,
    max_pixels: common.MaxPixels = None,
    engine: Annotated[
        Literal["auto", "openvino", "onnxruntime"], typer.Option(help="What runs the model.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "f32", "bf16"], typer.Option(help="As for predict, without int8.")
    ] = "auto",
) -> None:
    """Show what the model used: overlays, raw maps and records for images called abnormal.

    A map shows what the model used, not where the lesion is. Exit code 3 says that some images could not be read.
    """
    from mskscreen.evaluation.explain.explainer import NO_CHECKPOINT, Explainer, Settings
    from mskscreen.evaluation.explain.files import Request, explain_files, write_sheets
    from mskscreen.pixels.memory import keep_freed_memory
    from mskscreen.saliency import rise
    from mskscreen.saliency.target import JOINT, Target

    model = _one(models)
    chosen = tuple(map(str, dict.fromkeys(method or _METHODS[:1])))
    for name, options in _OPTIONS.items():
        if name not in chosen:
            common.refuse_idle(context, f"without --method {name}", *options)
    if "integrated-gradients" in chosen and checkpoint is None:
        raise typer.BadParameter(NO_CHECKPOINT)
    paths = find_files(sources, out)
    try:
        Target.parse(of, "hand" if of == JOINT else None)
    except DataError as unknown:
        raise typer.BadParameter(str(unknown), param_hint="--of") from unknown
    keep_freed_memory()
    screener = _open(model, at, engine=engine, precision=precision, limits=common.limits_of(max_pixels))
    settings = Settings(rise.Settings(passes, cells, seed, converged, fine), patches)
    explainer = Explainer(screener.engine, settings, checkpoint)
    request = Request(chosen, of, at, normal, raw, layout)
    records: list[MapRecord] = []
    errors: list[str] = []
    found = done = burned_in = spent = 0
    budget = len(paths) * sum(map(settings.most_passes, request.methods))
    with (
        common.needs("explain"),
        common.interruptible() as interrupted,
        common.progress("forward passes", budget) as advance,
    ):
        for made in explain_files(screener, explainer, request, paths, out, advance):
            records += made.records
            found += made.found
            spent += 0 if made.found else sum(record.passes for record in made.records)
            burned_in += made.burned_in
            done += 1
            errors += [f"image {done} of {len(paths)}, {made.error}"] if made.error else []
            if interrupted():
                break
    for page in write_sheets(out, records) if sheet else ():
        print(page)
    for error in errors:
        common.alarm.print(f"not explained: {error}")
    _sum_up(out, records, found, spent)
    common.say_burned_in(burned_in)
    if found == len(paths):
        common.err.print(f"{out}: is finished already; nothing to do")
    if done < len(paths):
        common.alarm.print(f"stopped after {done} of {len(paths)} images; the same command goes on")
        raise typer.Exit(common.Exit.FAILURE)
    raise typer.Exit(common.Exit.SOME_FAILED if errors else common.Exit.OK)


def _one(models: list[str]) -> str:
    """The model, where only one is named: of several, Click would take the last in silence."""
    if len(models) > 1:
        raise typer.BadParameter("maps are of one model; name one at a time", param_hint="--model")
    return models[0]


def _open(model: str, at: str, **how: Any) -> Screener:
    from mskscreen.inference import Screener

    # Large images are read once and whole: score and map are of the same pixels, those of the file.
    screener = Screener.load(model, reading="whole", **how)
    if at not in screener.engine.contract.operating_points:
        raise typer.BadParameter(f"model '{model}' has no operating point '{at}'")
    return screener


def _sum_up(out: Path, records: list[MapRecord], found: int, spent: int) -> None:
    """Say what there is, in how many forward passes of this run, what was left out and what was there already."""
    maps, images = sum(r.map is not None for r in records), len({r.file for r in records if r.map})
    skipped = len({r.file for r in records if not r.map})
    common.err.print(
        f"{out}: {maps} maps of {images} images in {spent} forward passes, {skipped} called normal and left out"
        + (" (--normal explains them too)" if skipped else "")
        + (f", {found} images were there already" if found else "")
        + f"; {NOT_FOR_DIAGNOSIS}"
    )
    if wide := sum(record.converged is False for record in records):
        common.err.print(f"{wide} maps of RISE did not converge; raise --passes, or --converged for a coarser map")


@app.command()
def score(
    context: typer.Context,
    predictions: Annotated[Path, typer.Argument(help="The predictions table of the images.", exists=True)],
    maps: Annotated[Path, typer.Argument(help="Folder of maps that explain wrote.", exists=True, file_okay=False)],
    truth: Annotated[
        Path | None,
        typer.Option(
            help="Phantoms, a CSV of boxes or masks, COCO .json, or a folder of YOLO labels. Without it only what "
            "--model tells is measured, of all images called abnormal.",
            exists=True,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the report to this HTML file.", callback=common.to_write)
    ] = None,
    level: Annotated[
        float | None, typer.Option(min=0, max=1, help="Fixed threshold of IoU, as a share of a map's peak.")
    ] = None,
    dev_maps: Annotated[
        Path | None, typer.Option(help="Maps of development images, to choose --level.", exists=True)
    ] = None,
    dev_predictions: Annotated[Path | None, typer.Option(help="Predictions of --dev-maps.", exists=True)] = None,
    dev_truth: Annotated[
        Path | None, typer.Option(help="Truth of --dev-maps, if not --truth.", exists=True)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model, for insertion, deletion, ROAD, infidelity and counterfactuals.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images for the measures that need the model.")] = 32,
    resamples: common.Resamples = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    of: Annotated[
        Literal["abnormal", "joint"] | None, typer.Option(help="What the maps speak of, where there are both.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, if not where the maps say.", exists=True, file_okay=False),
    ] = None,
    max_pixels: common.MaxPixels = None,
    form: common.FormatOption = common.Format.TABLE,
) -> None:
    """Judge maps by the truth and the model, beside maps that know no image, with intervals and cost.

    Exit code 3 says that some maps could not be read and were left out.
    """
    if not model and not truth:
        raise typer.BadParameter("name --truth, or --model for the measures that need no truth")
    if not truth:
        common.refuse_idle(context, "without --truth", "level", "dev_maps", "dev_predictions", "dev_truth")
    if not model:
        common.refuse_idle(context, "without --model", "images", "root", "max_pixels")
    if not dev_maps:
        common.refuse_idle(context, "without --dev-maps", "dev_truth")
    with common.needs("phantom"):
        from mskscreen.evaluation.explain import report as pages
        from mskscreen.evaluation.explain.cases import UNTOLD, refuse_shared, resampled, right_cases
        from mskscreen.evaluation.explain.faithful import asking, pictures
        from mskscreen.evaluation.explain.score import LOCATION, REFERENCES, development_levels, measure, table
        from mskscreen.evaluation.explain.truth import read_truth
    from mskscreen.inference import Screener
    from mskscreen.predictions import Predictions
    from mskscreen.saliency.maps import read_records

    if (dev_maps is None) != (dev_predictions is None) or (dev_maps and level is not None):
        raise typer.BadParameter("name --dev-maps with --dev-predictions, or --level instead")
    screener = Screener.load(model, limits=common.limits_of(max_pixels)) if model else None
    contract = screener.engine.contract.digest if screener else None
    truths = read_truth(truth) if truth else UNTOLD
    broken: list[str] = []

    def left_out(error: str) -> None:
        broken.append(error)
        common.alarm.print(f"left out: {error}")

    joined = right_cases(Predictions.read(predictions), read_records(maps, left_out), truths, of, contract)
    levels = {} if level is None else dict.fromkeys((*_METHODS, *REFERENCES), level)
    if dev_maps and dev_predictions:
        known = read_truth(dev_truth) if dev_truth else truths
        contract = contract or joined.model.get("contract")
        records = read_records(dev_maps, left_out)
        development = right_cases(Predictions.read(dev_predictions), records, known, of, contract)
        refuse_shared(joined, development, patients=known.numbering == truths.numbering)
        levels = development_levels(development, dev_maps, left_out)
    how: dict[str, Any] = {"asked": asking(screener, joined.cases, images, root)} if screener else {}
    with common.progress("judging maps", len(joined.cases)) as advance:
        values = measure(joined, maps, levels, left_out=left_out, advance=advance, **how)
    joined = values.joined
    rows = table(values, resamples=resamples, seed=seed)
    common.show(pages.figures(rows) if form is common.Format.JSON else pages.lines(rows), form)
    if report:
        pages.write_report(report, rows, pages.described(joined, levels), pictures(joined.cases, maps, 24))
        common.err.print(f"{report}: written")
    common.err.print(f"{joined}; intervals over {resampled(joined.cases)}; {NOT_FOR_DIAGNOSIS}")
    if truth and values.alone:
        common.err.print(f"{values.alone} images have no {LOCATION}: no other patient has a truth")
    raise typer.Exit(common.Exit.SOME_FAILED if broken else common.Exit.OK)


@app.command("sanity")
def check(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Files, folders, glob patterns, or - for a list on stdin.")
    ],
    models: Models = ["demo"],  # noqa: B006 - typer copies it
    shuffled: Annotated[
        Path | None,
        typer.Option(help="The same architecture trained on shuffled labels.", exists=True, dir_okay=False),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images to take, spread evenly over the files.")] = 12,
    max_pixels: common.MaxPixels = None,
    form: common.FormatOption = common.Format.TABLE,
) -> None:
    """Check that maps depend on what the model has learned: how similar HiResCAM stays under changes.

    It must fall while weights are shuffled, and stay near 1 under another file format, a shift by a pixel, another
    engine and another precision. Exit code 3 says that some images could not be read.
    """
    from mskscreen.evaluation.explain.sanity import sanity
    from mskscreen.inference import Screener
    from mskscreen.inference.catalogue import on_server

    model = _one(models)
    if on_server(model):
        raise typer.BadParameter("a server shows no layers; name the model's file", param_hint="--model")
    paths = find_files(sources, None)
    chosen = [paths[len(paths) * k // min(images, len(paths))] for k in range(min(images, len(paths)))]
    screener = Screener.load(model, precision="f32", reading="whole", limits=common.limits_of(max_pixels))
    found = sanity(screener, chosen, shuffled)
    rows = [
        {"check": f"{stage['share']:.0%} of the layers shuffled", "similarity": stage["similarity"]}
        for stage in found["cascade"]
    ]
    if shuffled:
        rows.append({"check": "trained on shuffled labels", "similarity": found["label randomisation"]})
    rows += [{"check": name, "similarity": value} for name, value in found["repeatability"].items()]
    common.show(rows, form)
    common.err.print(f"HiResCAM of {len(chosen) - len(found['unreadable'])} images; {NOT_FOR_DIAGNOSIS}")
    if constant := max(stage["constant"] for stage in found["cascade"]):
        common.err.print(f"up to {constant:.0%} of the maps of shuffled weights are constant: the model has died")
    for error in found["unreadable"]:
        common.alarm.print(f"left out: {error}")
    raise typer.Exit(common.Exit.SOME_FAILED if found["unreadable"] else common.Exit.OK)
