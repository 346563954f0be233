"""The images that a verb is given: files, folders, patterns, manifests, or a list on stdin."""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import typer

from mskscreen.cli import common


def find_files(sources: list[str], maps: Path | None) -> list[Path]:
    """The images that the arguments stand for, each once; pictures written by an earlier run are none."""
    names = _listed() if sources == ["-"] else sources
    if "" in names:
        raise typer.BadParameter("an empty name stands for no image; for this folder name .")
    from mskscreen.inference.files import passed_over

    names = _radiographs(names)
    found: dict[str, Path] = {}
    idle: list[str] = []
    passed: Counter[str] = Counter()
    for name in names:
        path = None
        for path in _images(name, passed):
            found.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - a link is a file of its own
        if path is None:
            idle.append(name)
    own = f"{os.path.abspath(maps)}{os.sep}" if maps else None  # noqa: PTH100
    files = [path for place, path in found.items() if not (own and place.startswith(own))]
    left = passed_over(passed)
    if not files:
        where = "stdin" if sources == ["-"] else ", ".join(f"'{name}'" for name in sources)
        raise typer.BadParameter(
            f"no radiograph in {where}: name DICOM, PNG, JPEG, TIFF, BMP or WebP files"
            + (f"; passed over: {left}" if left else "")
        )
    if idle:
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        common.alarm.print(f"no radiograph in '{idle[0]}'{more}")
    if left:
        common.err.print(f"passed over: {left}")
    return files


def _listed() -> list[str]:
    """The names on stdin, one a line, of any bytes that a file may be called."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())
    # Editors of Windows mark a text as UTF-8 by a first character that is none of its first name.
    names = [line.rstrip("\r\n") for line in sys.stdin.read().removeprefix("\ufeff").split("\n") if line.strip()]
    if any("\0" in name for name in names):
        raise typer.BadParameter(
            "what stdin holds is no list of names, one a line; save an image to a file and name that"
        )
    return names


def _radiographs(names: list[str]) -> list[str]:
    """The names without those of predictions tables, which are no radiographs; nothing but tables is refused."""
    from mskscreen.predictions import is_table

    tables = [name for name in names if is_table(Path(name))]
    if not tables:
        return names
    left = [name for name in names if name not in tables]
    said = f"'{tables[0]}' is a predictions table, not a radiograph; judge it with: mskscreen evaluate {tables[0]}"
    if not left:
        raise typer.BadParameter(f"{said} (or compare, calibrate, robustness, review pack)")
    common.err.print(f"passed over: {said}")
    return left


def _images(name: str, passed: Counter[str]) -> Iterator[Path]:
    """The images of a manifest, or those that any other name stands for."""
    from mskscreen.inference.files import find_radiographs

    if not name.endswith(".parquet"):
        yield from find_radiographs(name, passed)
        return
    with common.needs("data"):
        import pyarrow  # noqa: F401

        from mskscreen.data.manifest import Manifest
    manifest = Manifest.read(Path(name))
    tree = manifest.tree
    for image in manifest["image"]:
        tree.stat(image)  # refuses a link out of the folder; what is missing becomes a row with an error
        yield tree.root / image
