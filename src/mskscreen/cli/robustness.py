"""`mskscreen robustness`: predict the images of a table again under disturbances, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskscreen.cli import common
from mskscreen.cli.cases import screener_of


def robustness(
    predictions: Annotated[Path, typer.Argument(help="The table of the undisturbed images.", exists=True)],
    model: Annotated[str, typer.Option(help="The model that made it: an ONNX file or a bundled name.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the tables and their index.json.")],
    studies: Annotated[
        int | None, typer.Option(min=1, help="Only this many studies, drawn at random; by default all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Predict again with polarity, rotation, JPEG, contrast and noise changed, for evaluate --robustness.

    A run that was stopped goes on where it was.
    """
    from mskscreen.evaluation.disturb import DISTURBANCES
    from mskscreen.evaluation.repredict import finished, some_studies, write_disturbed
    from mskscreen.predictions import Predictions

    with common.needs("data"):
        base = Predictions.read(predictions)
    screener = screener_of(model, base, predictions)
    if studies:
        base = some_studies(base, studies, seed)
    if finished(screener, base, out):
        common.err.print(f"{out}: is finished already; nothing to do")
    failed = 0
    with common.progress("predicting again", len(base)) as advance:
        for error in write_disturbed(screener, base, images, out):
            failed += error
            advance(1)
    common.err.print(f"{out}: {len(DISTURBANCES)} disturbances of {len(base)} images, {failed} with an error")
    raise typer.Exit(common.Exit.SOME_FAILED if failed else common.Exit.OK)
