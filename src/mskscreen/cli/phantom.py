"""`mskscreen phantom`: synthetic radiographs whose truth is known to the pixel."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.cli.common import Format, FormatOption, err, needs, progress, show, to_write
from mskscreen.errors import DataError

app = typer.Typer(
    help="Make synthetic radiographs whose truth is known to the pixel, and look at them.", no_args_is_help=True
)
Joint = StrEnum("Joint", {name.upper(): name for name in JOINT_LABELS})  # type: ignore[misc]

Folder = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a phantom data set.")]


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="New folder, or one to go on with.")],
    studies: Annotated[int, typer.Option(min=1, help="How many studies, of one to four views each.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Decides every byte.")] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0 for one a core. Does not change the result.")
    ] = 0,
    long_side: Annotated[
        int,
        typer.Option(
            min=64, max=4096, help="Longer side of every image in pixels: 64 to 4096, for real work 512 to 2500."
        ),
    ] = 512,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Also the twin of each abnormal image without it.")
    ] = False,
    dicom: Annotated[bool, typer.Option("--dicom", help="Also a 12-bit DICOM file of each image.")] = False,
    joint: Annotated[list[Joint] | None, typer.Option(help="Only this joint; repeat for more.")] = None,
    occult_apart: Annotated[
        bool,
        typer.Option("--occult-apart", help="Put abnormal studies in which nothing can be seen under OUT/occult."),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Write a MURA-v1.1 tree of phantoms, masks and a manifest; a killed run goes on where it stopped."""
    from mskscreen.inference.engines import cores

    with needs("phantom"):
        from mskscreen.phantom.dataset import make as make_dataset
        from mskscreen.phantom.manifest import summary
        from mskscreen.phantom.plan import Recipe
    labels = tuple(str(name) for name in joint or ())
    recipe = Recipe(studies, seed, long_side, pairs, dicom, labels, occult_apart)
    with progress("making phantoms", studies) as advance:
        outcome = make_dataset(folder, recipe, workers or cores(), advance)
    if outcome.made:
        resumed = f", {outcome.found} were there already" if outcome.found else ""
        err.print(f"{outcome.made} studies made in {folder}{resumed}")
    else:
        err.print(f"{folder} is complete: nothing to do")
    show(summary(outcome.rows), form)


@app.command("summary")
def summarise(folder: Folder, form: FormatOption = Format.TABLE) -> None:
    """Print how many phantoms of each kind a data set holds and how visible they are."""
    with needs("phantom"):
        from mskscreen.phantom.manifest import read_manifest, summary
    show(summary(read_manifest(folder)), form)


@app.command()
def sheet(
    folder: Folder,
    picture: Annotated[
        Path, typer.Argument(metavar="PICTURE", help="PNG or JPEG file to write.", callback=to_write)
    ],
    images: Annotated[int, typer.Option(min=1, help="How many, evenly spread over the data set.")] = 40,
    columns: Annotated[int, typer.Option(min=1, help="Images in a row.")] = 8,
    cell: Annotated[int, typer.Option(min=1, help="Size of an image on the sheet in pixels.")] = 240,
    joint: Annotated[Joint | None, typer.Option(help="Only this joint.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind of abnormality, or `normal`.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Each abnormal image beside its twin.")] = False,
) -> None:
    """Draw a contact sheet with captions and the outlines of the masks."""
    with needs("phantom"):
        from mskscreen.phantom.manifest import read_manifest
        from mskscreen.phantom.sheet import contact_sheet, spread
    rows = [
        row
        for row in read_manifest(folder)
        if (joint is None or row.joint == joint)
        and (kind is None or (row.kind or "normal") == kind)
        and (row.twin is not None or not pairs)
    ]
    drawn = contact_sheet(folder, spread(rows, images), columns=columns, cell=cell, pairs=pairs)
    try:
        drawn.save(picture)
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot write {picture} ({error}); name a PNG or JPEG file in an existing folder"
        ) from error
    err.print(f"{picture} shows {min(images, len(rows))} of {len(rows)} images")


@app.command()
def prior(folder: Folder, form: FormatOption = Format.TABLE) -> None:
    """Print how often a fixed place per region and view, without any image, hits the mask."""
    with needs("phantom"):
        from mskscreen.phantom.manifest import read_manifest
        from mskscreen.phantom.priors import location_prior
    show(location_prior(folder, read_manifest(folder)), form)


@app.command()
def shortcuts(folder: Folder, form: FormatOption = Format.TABLE) -> None:
    """Print how well a linear model tells the label from the borders of the images (0.5 is not at all)."""
    with needs("phantom"):
        from mskscreen.phantom.manifest import read_manifest
        from mskscreen.phantom.shortcuts import border_auroc
    show([border_auroc(folder, read_manifest(folder))], form)
