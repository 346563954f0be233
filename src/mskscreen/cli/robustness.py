"""`mskscreen robustness`: predict the images of a table again under disturbances, for the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mskscreen.cli import common
from mskscreen.storage import write_text


def robustness(
    predictions: Annotated[Path, typer.Argument(help="The table of the undisturbed images.", exists=True)],
    model: Annotated[str, typer.Option(help="The model that made it: an ONNX file or a bundled name.")],
    images: Annotated[Path, typer.Option(help="Folder of the images.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder for the tables and their index.json.")],
) -> None:
    """Predict again with polarity, rotation, JPEG, contrast and noise changed, for evaluate --robustness."""
    from mskscreen.errors import DataError
    from mskscreen.evaluation.disturb import DISTURBANCES, repredict
    from mskscreen.inference import Screener
    from mskscreen.predictions import Prediction, Predictions

    with common.needs("data"):
        base = Predictions.read(predictions)
    screener = Screener.load(model)
    digest = screener.engine.contract.digest
    if base.model.get("contract", digest) != digest:
        raise DataError(f"{predictions}: made by another model than '{model}'; name the model that made it")
    rows: dict[str, list[Prediction]] = {name: [] for name in DISTURBANCES}
    failed = 0
    with common.progress("predicting again", len(base)) as advance:
        for disturbed in repredict(screener, base, images):
            failed += any(row.error for row in disturbed.values())
            for name, row in disturbed.items():
                rows[name].append(row)
            advance(1)
    out.mkdir(parents=True, exist_ok=True)
    index = {name: f"disturbed-{k:02d}.json" for k, name in enumerate(rows)}
    for name, file in index.items():
        table = Predictions(tuple(rows[name]), {**base.model, "disturbance": name}, base.threshold)
        table.write(out / file)
    # The index comes last: with it the tables are whole.
    write_text(out / "index.json", json.dumps(index, indent=1))
    common.err.print(f"{out}: {len(index)} disturbances of {len(base)} images, {failed} with an error")
    raise typer.Exit(common.Exit.SOME_FAILED if failed else common.Exit.OK)
