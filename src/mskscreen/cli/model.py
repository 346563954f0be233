"""The verbs `model ...`: what a model file is, whether it is whole, and how foreign files are brought in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mskscreen.cli.common import (
    Exit,
    Format,
    FormatOption,
    check_model_output,
    err,
    needs,
    plain,
    progress,
    show,
    to_write,
)

app = typer.Typer(help="Model files: show, verify, compare, import, download.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(metavar="FILE", help="An ONNX file, or the name of a model.")]


@app.command("show")
def show_model(model: Model, form: FormatOption = Format.TABLE) -> None:
    """Print contract, digests, inputs and outputs, gates and provenance of a model file."""
    from mskscreen.inference.catalogue import model_path
    from mskscreen.inference.verify import describe

    path = model_path(model)
    rows: list[dict[str, Any]] = [{"field": name, "value": value} for name, value in describe(path)]
    show(rows, form, title=str(path))


@app.command()
def verify(model: Model, form: FormatOption = Format.TABLE) -> None:
    """Check schema, digest, the files beside it, and the self-test on each engine: exit code 3 where one fails."""
    from mskscreen.inference.catalogue import model_path
    from mskscreen.inference.verify import FAILED
    from mskscreen.inference.verify import verify as check

    path = model_path(model)
    checks = check(path)
    show([found._asdict() for found in checks], form, title=str(path))
    if any(found.outcome == FAILED for found in checks):
        raise typer.Exit(Exit.SOME_FAILED)


@app.command()
def compare(a: Model, b: Model, form: FormatOption = Format.TABLE) -> None:
    """Print the fields in which two contracts differ, and what both models give for the self-test image."""
    from mskscreen.inference.catalogue import model_path
    from mskscreen.inference.verify import compare as differences

    rows = [found._asdict() for found in differences(model_path(a), model_path(b))]
    show(rows if form is Format.JSON else [_told_apart(row) for row in rows], form)


def _told_apart(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a reader: where values that differ would look the same, with all their digits."""
    field, *values = row.values()
    if values[0] != values[1] and plain(values[0]) == plain(values[1]):
        values = [str(value) for value in values]
    return dict(zip(row, (field, *values), strict=True))


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A foreign ONNX file.")],
    describe: Annotated[
        Path | None,
        typer.Option(
            help="Its contract: a TOML file with the fields of ModelContract.", exists=True, dir_okay=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The new file; else NAME-mskscreen.onnx beside it.")
    ] = None,
) -> None:
    """Give a foreign ONNX file a contract; the six published files are known by their SHA-256.

    Old operator sets are converted and a fixed batch is made dynamic where the outputs stay the same.
    """
    with needs("train"):
        from mskscreen.export.foreign import PROVENANCE_KEY, import_model
    out = out or file.with_name(f"{file.stem}-mskscreen.onnx")
    check_model_output(out)
    to_write(out)
    with err.status("importing"):
        contract = import_model(file, out, describe)
    notes = contract.provenance.protocol[PROVENANCE_KEY]
    err.print(", ".join(f"{name} {value}" for name, value in notes.items() if name not in ("file", "sha256")))
    if contract.provenance.notes:
        err.print(contract.provenance.notes)
    print(out)


@app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="A published model, as: resnet18. Without a name they are listed.")
    ] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Fetch a published model into the cache folder; a download that was stopped goes on where it was."""
    from mskscreen.inference.catalogue import published
    from mskscreen.inference.download import fetch

    if not name:
        rows = [
            {"name": each.name, "network": each.title, "bytes": each.bytes, "here": each.path.is_file()}
            for each in published().values()
        ]
        show(rows, form)
        return
    if name not in published():
        raise typer.BadParameter(f"'{name}' is not a published model; they are {', '.join(published())}")
    model = published()[name]
    with progress(f"fetching {model.file}", model.bytes) as advance:
        fetched = fetch(model.url, model.path, model.bytes, model.sha256, advance)
    if not fetched:
        err.print(f"{model.path}: is here already; nothing to do")
    print(model.path)
