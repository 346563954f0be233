"""`mskscreen inspect`: what the decoder makes of files, and everything it did to get there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mskscreen.cli.common import Exit, Format, progress, show


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Radiographs: DICOM, PNG, JPEG, TIFF, BMP or WebP.")],
    form: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.TABLE,
) -> None:
    """Decode files and print the record of each: source, LUT or window, inversion, padding, warnings."""
    from mskscreen.errors import DecodeError
    from mskscreen.pixels import read_radiograph

    rows: list[dict[str, Any]] = []
    with progress("inspecting", len(files)) as advance:
        for file in files:
            try:
                rows.append({"file": str(file), **read_radiograph(file).record.to_dict(), "error": None})
            except DecodeError as error:
                rows.append({"file": str(file), "error": str(error)})
            advance(1)
    if form is Format.JSON:
        show(rows, form)
    else:
        for row in rows:
            show([{"field": key, "value": _plain(value)} for key, value in row.items() if _said(value)], form)
    if any(row["error"] is not None for row in rows):
        raise typer.Exit(Exit.SOME_FAILED)


def _said(value: Any) -> bool:
    return value is not None and value != [] and value is not False


def _plain(value: Any) -> Any:
    """A nested value as one line."""
    return ", ".join(f"{key} {text}" for key, text in value.items()) if isinstance(value, dict) else value
