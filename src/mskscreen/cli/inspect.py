"""`mskscreen inspect`: what the decoder makes of files, and everything it did to get there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mskscreen.cli.common import Exit, Format, FormatOption, MaxPixels, limits_of, out, plain, progress, show
from mskscreen.cli.files import find_files


def inspect(
    sources: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Files, folders, glob patterns, or - for a list on stdin.")
    ],
    max_pixels: MaxPixels = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Decode files and print the record of each: source, LUT or window, inversion, padding, warnings."""
    from mskscreen.errors import DecodeError
    from mskscreen.pixels import read_radiograph

    files = find_files(sources, None)
    limits = limits_of(max_pixels)
    rows: list[dict[str, Any]] = []
    with progress("inspecting", len(files)) as advance:
        for file in files:
            try:
                rows.append({"file": str(file), **read_radiograph(file, limits).record.to_dict(), "error": None})
            except DecodeError as error:
                rows.append({"file": str(file), "error": str(error)})
            advance(1)
    if form is Format.JSON:
        show(rows, form)
    else:
        for number, row in enumerate(rows):
            said = {key: _plain(value) for key, value in row.items() if _said(value)}
            if out.is_terminal:
                show([{"field": key, "value": value} for key, value in said.items()], form)
            else:  # a pipe has no width to fold a table at, and lines are what its reader can work with
                print("\n" * (number > 0) + "\n".join(f"{key}: {plain(value)}" for key, value in said.items()))
    if any(row["error"] is not None for row in rows):
        raise typer.Exit(Exit.SOME_FAILED)


def _said(value: Any) -> bool:
    return value is not None and value != [] and value is not False


def _plain(value: Any) -> Any:
    """A nested value as one line."""
    return ", ".join(f"{key} {text}" for key, text in value.items()) if isinstance(value, dict) else value
