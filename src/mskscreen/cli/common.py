"""What every verb of the command line shares: exit codes, tables, progress and missing extras.

Results go to stdout and everything else to stderr, so that output can be piped.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from mskscreen.errors import MskscreenError, one_line
from mskscreen.storage import unwritable

if TYPE_CHECKING:
    from mskscreen.pixels import Limits


class Exit(IntEnum):
    """Exit codes of every verb."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    SOME_FAILED = 3


class Format(StrEnum):
    """How a verb prints a table."""

    TABLE = "table"
    JSON = "json"


MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels",
        min=1,
        help="Most pixels (rows x columns) that an image may have; by default 67 million (2^26).",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print.")]
Labels = Annotated[
    Path | None,
    typer.Option(help="Truth: a manifest or a CSV. By default the folder names of MURA.", exists=True),
]
LabelColumn = Annotated[str, typer.Option(help="Column of the truth, where there are several.")]
Sensitivity = Annotated[float, typer.Option(min=0, max=1, help="Target of the point 'sensitive'.")]
Specificity = Annotated[float, typer.Option(min=0, max=1, help="Target of the point 'specific'.")]
MissCost = Annotated[float | None, typer.Option(help="Add a point 'cost': a miss costs this many false alarms.")]
Resamples = Annotated[int, typer.Option(min=1, help="Resamples of patients for the intervals.")]
_PIPE_WIDTH = 10_000


class _Lines(Console):
    """Prints each text on one line, whatever the names in it hold."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(one_line(each) if isinstance(each, str) else each for each in objects), **how)


# Without markup and emoji: a name such as `a:x:.png` is shown as it is.
_AS_IT_IS: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
out = Console(**_AS_IT_IS)
err = _Lines(stderr=True, soft_wrap=True, **_AS_IT_IS)
# What --quiet leaves: errors.
alarm = _Lines(stderr=True, soft_wrap=True, **_AS_IT_IS)


class _LogLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        return one_line(super().formatMessage(record))


class Root(TyperGroup):
    """The command itself: a name in what it says of a wrong call is of one line, too."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = one_line(error.message)
            raise


def configure(verbosity: int) -> None:
    """Set the log level: -1 errors only, 0 warnings, 1 information, 2 everything."""
    err.quiet = verbosity < 0
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.basicConfig(level=level, stream=sys.stderr, force=True)
    logging.getLogger().handlers[0].setFormatter(_LogLine("%(levelname)s %(message)s"))


def group_with(verb: str) -> type[TyperGroup]:
    """A group in which what is no verb is an argument of `verb`: `explain X` is short for `explain files X`."""

    class Group(TyperGroup):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if args and args[0] not in {*self.commands, *ctx.help_option_names}:
                args = [verb, *args]
            return super().parse_args(ctx, args)

    return Group


def limits_of(pixels: int | None) -> Limits:
    """What a file may ask for, by the option --max-pixels."""
    from mskscreen.pixels import Limits

    return Limits() if pixels is None else Limits.of_pixels(pixels)


def check_model_output(out: Path) -> None:
    """Raise BadParameter where writing a model to `out` would lose what is no model of this project."""
    from mskscreen.inference.catalogue import is_model

    if out.exists() and not is_model(out):
        raise typer.BadParameter(
            f"{out}: exists already and is no model of mskscreen; choose another name", param_hint="--out"
        )


def to_write(path: Path | None) -> Path | None:
    """Raise BadParameter, before any work, where no file can be written to `path`; also a callback of options."""
    if path and (why := unwritable(path)):
        raise typer.BadParameter(f"{path}: {why}")
    return path


def to_make(path: Path | None) -> Path | None:
    """As `to_write`, where folders that are not there will be made."""
    if path and (why := unwritable(path, made=True)):
        raise typer.BadParameter(f"{path}: {why}")
    return path


def say_burned_in(images: int) -> None:
    """Say on stderr that pictures were drawn of so many images with text in their pixels, if any."""
    if images:
        err.print(
            f"burned-in annotation (DICOM 0028,0301) is declared by {images} of the images: their pictures may "
            "show it, such as the patient's name"
        )


def refuse_idle(context: typer.Context, why: str, *names: str) -> None:
    """Raise BadParameter where the user gave one of the parameters `names`: of no use, for the reason `why`."""
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in names}
    if idle := [flags[name] for name, source in sources.items() if source and source.name != "DEFAULT"]:
        raise typer.BadParameter(f"leave out {' and '.join(idle)}: of no use {why}")


def show(rows: Sequence[Mapping[str, Any]], form: Format, *, title: str | None = None) -> None:
    """Print `rows` on stdout as a table (columns in the order of the first row) or as a JSON list.

    A value that may take several lines of a table is a `Text`.
    """
    if form is Format.JSON:
        print(json.dumps(list(rows), indent=1, default=str))
        return
    table = Table(title=title and one_line(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column in rows[0] if rows else ():
        numeric = all(isinstance(row[column], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else plain(value) for value in row.values()))
    if out.is_terminal:
        out.print(table)
        return
    # A pipe has no width: give the table all it needs instead of folding it at 80 columns, and not a blank more.
    wide = Console(width=_PIPE_WIDTH, **_AS_IT_IS)
    with wide.capture() as printed:
        wide.print(table)
    above = ""
    for line in map(str.rstrip, printed.get().splitlines()):
        # The rule ends with the heads of the columns, however long a value below it is.
        print(line[: len(above)] if line.strip(" ─") == "" and line else line)
        above = line


def plain(value: Any) -> str:
    """A value as text of one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        # A rate of 0.0001 is not 0.000.
        text = f"{value:.3f}"
        return text if math.isclose(float(text), value, rel_tol=0.01) else f"{value:.3g}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return one_line(text)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, drawn only on a terminal; yields `advance(count)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    visible = err.is_terminal and not err.quiet
    with Progress(*columns, console=err, disable=not visible, transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def interruptible(*others: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Yield whether Ctrl-C was pressed or one of the `others` came, so that a job can stop between two rows.

    A second one stops at once.
    """
    pressed = False
    kinds = (signal.SIGINT, *others)

    def note(*_: object) -> None:
        nonlocal pressed
        pressed = True
        restore()

    def restore() -> None:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)

    before = [signal.signal(kind, note) for kind in kinds]
    try:
        yield lambda: pressed
    finally:
        restore()


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing optional dependency into one sentence that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MskscreenError(
            f"this command needs the package '{error.name}'; install it in the clone of mskscreen with: "
            f"pip install '.[{extra}]'"
        ) from error
