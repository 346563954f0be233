"""Data sets of phantoms, made by runs that can be killed and taken up again.

    mskscreen phantom make OUT --studies 1000 --seed 7 --workers 2

A study is rendered into a temporary folder and renamed into place, then noted in a journal; the manifest is
written last. What a study holds depends on the recipe and its index alone, never on the worker that made it.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from mskscreen.errors import DataError, short
from mskscreen.lock import locked
from mskscreen.phantom import manifest
from mskscreen.phantom.manifest import Row
from mskscreen.phantom.plan import Recipe, Slot, plan
from mskscreen.phantom.study import APART, PARTIAL, ROOT, write_study
from mskscreen.phantom.volumes import prepare
from mskscreen.storage import discard_partials, disk_full, remedy, replacing, write_text
from mskscreen.workers import in_blocks

_RECIPE, _JOURNAL, _LOCK = "recipe.json", "journal.jsonl", "make.lock"
_HALF = ".recipe.*.partial.json"
# Recipes did not name the renderer before it had a second revision.
_UNNAMED = {"renderer": 1}
# No folder can be made at such a place, however often it is tried.
_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class Outcome:
    """What a run did: studies rendered now, and studies that were there already."""

    rows: list[Row]
    made: int
    found: int


def make(
    folder: Path, recipe: Recipe, workers: int = 1, advance: Callable[[int], None] = lambda _: None
) -> Outcome:
    """Write the data set of `recipe` into `folder`, or what a killed run left of it; `advance` counts studies.

    Raises DataError if the folder holds anything else, was made with another recipe, is being written by another
    process, or cannot be written.
    """
    try:
        return _make(folder, recipe, workers, advance)
    except OSError as error:
        why = "no room is left" if disk_full(error) else error.strerror or error
        again = "choose another folder" if error.errno in _NO_FOLDER else "run the same command again to go on"
        raise DataError(f"cannot write the phantoms to {folder}: {why}; {remedy(error) or again}") from error


def _make(folder: Path, recipe: Recipe, workers: int, advance: Callable[[int], None]) -> Outcome:
    _check(folder, recipe)  # before a lock is left in a folder of others
    finished = (folder / manifest.FILE).exists()
    with nullcontext() if finished else locked(folder / _LOCK, "these phantoms"):
        if not _check(folder, recipe):
            write_text(folder / _RECIPE, json.dumps(asdict(recipe), indent=1) + "\n")
        return _fill(folder, recipe, workers, advance)


def _fill(folder: Path, recipe: Recipe, workers: int, advance: Callable[[int], None]) -> Outcome:
    slots = plan(recipe)
    if (folder / manifest.FILE).exists():
        advance(len(slots))
        _tidy(folder)
        return Outcome(manifest.read_manifest(folder), 0, len(slots))
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    for place in (folder, folder / ROOT, folder / APART / ROOT):
        for suffix in (".json", ".csv", Path(manifest.FILE).suffix):
            discard_partials(place, suffix)
    done = dict(_noted(folder / _JOURNAL))
    found = len(done)
    advance(found)
    waiting = [slot for slot in slots if slot.index not in done]
    # A line cut short by a kill stays in the journal, so every new line starts on its own.
    with (folder / _JOURNAL).open("a") as journal:
        journal.write("\n")
        prepare()
        write = partial(write_study, str(folder), recipe)
        studies = [[slot] for slot in waiting]
        for _, [(index, rows)] in in_blocks(write, studies, workers=min(workers, len(studies)), crashed=_killed):
            done[index] = rows
            journal.write(json.dumps({"index": index, "rows": [asdict(row) for row in rows]}) + "\n")
            journal.flush()
            advance(1)
    rows = [row for index in sorted(done) for row in done[index]]
    _finish(folder, recipe, rows)
    return Outcome(rows, len(waiting), found)


def _killed(_: Slot) -> NoReturn:
    raise DataError(
        "a worker process was killed, most likely for want of memory; "
        "run the same command again with fewer --workers to go on"
    )


def _check(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder is ours already; DataError where it is of another recipe or holds anything else."""
    wanted = json.loads(json.dumps(asdict(recipe)))
    note = folder / _RECIPE
    if note.exists():
        try:
            there = _UNNAMED | json.loads(note.read_text())
        except (ValueError, TypeError, RecursionError):
            raise DataError(f"{note} is damaged; remove the folder or choose another one") from None
        if there["renderer"] != recipe.renderer:
            raise DataError(
                f"{folder} was made with revision {short(there['renderer'])} of the renderer, not "
                f"{recipe.renderer}, and is not continued by another; use it as it is, or choose another folder"
            )
        for field in fields(Recipe):
            if there.get(field.name) != wanted[field.name]:
                raise DataError(
                    f"{folder} was made with {field.name} {short(there.get(field.name))}, "
                    f"not {wanted[field.name]}; choose another folder or the same parameters"
                )
        return True
    # A run that was killed at once leaves its lock, or half a recipe.
    if folder.exists() and any(path.name != _LOCK and not path.match(_HALF) for path in folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no phantoms; choose another folder")
    return False


def _noted(journal: Path) -> Iterator[tuple[int, list[Row]]]:
    """The studies a killed run completed."""
    if not journal.exists():
        return
    for line in journal.read_text().splitlines():
        try:
            note: dict[str, Any] = json.loads(line)
            index, rows = note["index"], [Row(**row) for row in note["rows"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        yield index, rows


def _finish(folder: Path, recipe: Recipe, rows: list[Row]) -> None:
    """Write the lists of MURA and the list of occult studies, then the manifest, then remove the journal."""
    hidden = occult_studies(rows)
    trees = {"": [row for row in rows if not row.study.startswith(f"{APART}/")]}
    if recipe.occult_apart:
        trees[APART] = [row for row in rows if row.study.startswith(f"{APART}/")]
    for tree, members in trees.items():
        root = folder / tree / ROOT
        root.mkdir(parents=True, exist_ok=True)
        for split in ("train", "valid"):
            own = [row for row in members if row.split == split]
            studies = {_listed(row.study): row.label for row in own}
            write_text(root / f"{split}_image_paths.csv", "".join(f"{_listed(row.image)}\n" for row in own))
            lines = "".join(f"{study},{label}\n" for study, label in studies.items())
            write_text(root / f"{split}_labeled_studies.csv", lines)
    write_text(folder / "occult_studies.csv", "".join(f"{study},1\n" for study in hidden))
    with replacing(folder / manifest.FILE) as partial:
        manifest.write_manifest(partial, rows)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished data set needs."""
    (folder / _JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)


def _listed(path: str) -> str:
    """A path as MURA's lists have it: from the root of the tree on."""
    return path[path.index(ROOT) :]


def occult_studies(rows: list[Row]) -> list[str]:
    """Abnormal studies none of whose images shows it, in order."""
    visible = {row.study for row in rows if row.label and not row.occult}
    return list(dict.fromkeys(row.study for row in rows if row.label and row.study not in visible))
