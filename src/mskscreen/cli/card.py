"""`mskscreen card`: the model card of a model, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mskscreen.cli import common
from mskscreen.storage import write_text


def card(
    model: Annotated[str, typer.Argument(help="An ONNX file, or the name of a bundled model.")],
    evaluation: Annotated[
        Path | None,
        typer.Option(help="Figures to quote: the JSON that 'evaluate --format json' printed.", exists=True),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file instead of printing.", callback=common.to_write)
    ] = None,
) -> None:
    """Write a model card with the sections of Mitchell et al. (arXiv:1810.03993) from contract and evaluation."""
    from mskscreen.evaluation.card import is_card, model_card, read_evaluation
    from mskscreen.inference.catalogue import model_path, read_contract

    if out and out.exists() and not is_card(out):
        raise typer.BadParameter(
            f"{out}: exists already and is no model card; choose another name", param_hint="--out"
        )
    path = model_path(model)
    text = model_card(read_contract(path), path, read_evaluation(evaluation) if evaluation else None)
    if out is None:
        print(text, end="")
        return
    write_text(out, text)
    common.err.print(f"{out}: written")
