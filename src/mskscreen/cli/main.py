"""The command `mskscreen`: assembles the verbs, one short module each."""

from __future__ import annotations

import os
import sys
from pathlib import PurePath
from typing import Annotated

import typer

import mskscreen
from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common, data, explain, model, phantom, review, search
from mskscreen.cli.bench import bench
from mskscreen.cli.calibrate import calibrate
from mskscreen.cli.card import card
from mskscreen.cli.compare import compare
from mskscreen.cli.evaluate import evaluate
from mskscreen.cli.export import export
from mskscreen.cli.inspect import inspect
from mskscreen.cli.networks import networks
from mskscreen.cli.predict import predict
from mskscreen.cli.robustness import robustness
from mskscreen.cli.train import KEYS, train
from mskscreen.errors import MskscreenError
from mskscreen.mura_path import unlabelled
from mskscreen.storage import remedy

app = typer.Typer(
    name="mskscreen",
    cls=common.Root,
    help=f"Screen upper-limb radiographs: which joint, how likely abnormal, and where the evidence lies. "
    f"{NOT_FOR_DIAGNOSIS.capitalize()}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mskscreen {mskscreen.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more; twice for all.")] = 0,
) -> None:
    """Options that go before every verb."""
    common.configure(-1 if quiet else verbose)


app.command()(predict)
app.command()(inspect)
app.add_typer(data.app, name="data")
app.command()(evaluate)
app.command()(compare)
app.command()(robustness)
app.command()(calibrate)
app.command()(card)
app.command()(networks)
app.command(epilog=KEYS, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)
app.command()(export)
app.command()(bench)
app.add_typer(model.app, name="model")
app.add_typer(phantom.app, name="phantom")
app.add_typer(review.app, name="review")
app.add_typer(explain.app, name="explain")
app.add_typer(search.app, name="search")


def run() -> None:
    """Entry point: an error of ours, or of the file system, is one sentence on stderr and exit code 1."""
    try:
        app()
    except (MskscreenError, OSError) as error:
        said = _without_folders(error) if isinstance(error, OSError) else error
        if isinstance(error, OSError) and (what_to_do := remedy(error)):
            said = f"{said}; {what_to_do}"
        common.alarm.print(f"error: {said}")
        sys.exit(common.Exit.FAILURE)


def _without_folders(error: OSError) -> str:
    """What went wrong with which file; folders may tell the patient and the label."""
    if not error.strerror or not isinstance(error.filename, str | bytes):
        return error.strerror or str(error)
    return f"{unlabelled(PurePath(os.fsdecode(error.filename)).name)}: {error.strerror}"
