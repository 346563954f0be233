"""Predicts images again under disturbances of their pixels, resumably, for the robustness table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mskscreen.errors import MskscreenError
from mskscreen.evaluation.disturb import DISTURBANCES, Disturbance
from mskscreen.inference.journal import Journal, read_finished
from mskscreen.mura_path import mura_path
from mskscreen.predictions import FLAG_ERROR, Prediction, Predictions, score, write_table
from mskscreen.storage import write_text

if TYPE_CHECKING:
    from mskscreen.inference import Screener

INDEX = "index.json"


def find_image(root: Path, file: str) -> Path | None:
    """The file of a predictions row below `root`: as named, or by the end of its name; None where it is not there.

    The image of a MURA name is that of the same patient and study, which its own path names: `image1.png` alone
    is in every study. A name that leads out of the folder, by `..` or by a link, is not followed.
    """
    folder = root.resolve()
    parts = Path(file).parts
    for candidate in (Path(file), *(folder.joinpath(*parts[k:]) for k in range(len(parts)))):
        try:
            path = candidate.resolve()
            if path.is_relative_to(folder) and path.is_file() and _same_image(file, candidate.absolute()):
                return path
        except (OSError, ValueError):
            continue
    return None


def _same_image(file: str, found: Path) -> bool:
    """Whether two names do not differ in what MURA's grammar reads in `file`, as far as both say it."""
    wanted, seen = mura_path(file), mura_path(str(found))
    if wanted is None or wanted.image is None:
        return True
    return seen is not None and all(a == b for a, b in zip(wanted, seen, strict=True) if None not in (a, b))


def repredict(
    screener: Screener, base: Predictions, root: Path, disturbances: Mapping[str, Disturbance] = DISTURBANCES
) -> Iterator[dict[str, Prediction]]:
    """For each image of `base` its row under every disturbance of the pixels as shown; images lie below `root`.

    An image that cannot be read, or could not in `base`, is a row with an error. The disturbance that changes
    nothing gives the row of `base`. Calls are made at the threshold of `base`.
    """
    for row in base:
        try:
            yield _disturbed(screener, row, root, disturbances, base.threshold)
        except MskscreenError as error:
            broken = Prediction(row.file, row.study, patient=row.patient, flags=(FLAG_ERROR,), error=str(error))
            yield dict.fromkeys(disturbances, broken)


def _disturbed(
    screener: Screener, row: Prediction, root: Path, disturbances: Mapping[str, Disturbance], at: float
) -> dict[str, Prediction]:
    from mskscreen.pixels import read_radiograph

    path = find_image(root, row.file)
    if path is None or row.error:
        raise MskscreenError(row.error or "the image is not in the folder given; name the folder of the images")
    radiograph = read_radiograph(path)
    # Behind a disturbance the model's own window would undo it, or make it worse.
    pixels = screener.preprocessing.shown(radiograph).pixels
    batch = [screener.preprocessing(radiograph.with_pixels(disturb(pixels))) for disturb in disturbances.values()]
    outputs = screener.engine.run(np.stack(batch))
    contract = screener.engine.contract
    scored = [score(contract, outputs["pred1"][k], outputs["pred2"][k]) for k in range(len(disturbances))]
    for fields in scored:
        if fields["p_abnormal"] is not None:
            fields["abnormal"] = fields["p_abnormal"] >= at
    return {name: replace(row, **fields) for name, fields in zip(disturbances, scored, strict=True)}


def some_studies(base: Predictions, count: int, seed: int = 0) -> Predictions:
    """The rows of `count` studies of `base`, drawn at random; all of them if there are fewer."""
    names = sorted({row.study for row in base})
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    chosen = {names[k] for k in drawn}
    return replace(base, images=tuple(row for row in base if row.study in chosen))


def write_disturbed(
    screener: Screener,
    base: Predictions,
    root: Path,
    out: Path,
    disturbances: Mapping[str, Disturbance] = DISTURBANCES,
) -> Iterator[bool]:
    """Write `base` predicted again, a table for each disturbance and `index.json`, into `out`; see `repredict`.

    Yields for each image whether it failed. A run that was killed goes on where it was; one that has ended yields
    what it had found and predicts nothing but images with an error that `base` does not have.
    """
    files = _files(out, disturbances)
    if finished(screener, base, out, disturbances):
        yield from (row.error is not None for row in Predictions.read(next(iter(files.values()))))
        return
    job = _job(screener, base, disturbances)
    about = {name: {**base.model, "disturbance": name, "job": job} for name in disturbances}
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        journals = {name: stack.enter_context(Journal(files[name], about[name])) for name in disturbances}
        for name, journal in journals.items():
            journal.keep(_made(screener, files[name], job))
        known = {row.file for row in base if all(row.file in journal for journal in journals.values())}
        todo = replace(base, images=tuple(row for row in base if row.file not in known))
        fresh = repredict(screener, todo, root, disturbances)
        for row in base:
            if row.file not in known:
                for name, found in next(fresh).items():
                    journals[name].add(found)
            yield next(iter(journals.values()))[row.file].error is not None
        for name, journal in journals.items():
            write_table(files[name], (journal[row.file] for row in base), about[name], base.threshold)
    # The index comes last: with it the tables are whole.
    write_text(out / INDEX, json.dumps({name: file.name for name, file in files.items()}, indent=1))
    for journal in journals.values():
        journal.path.unlink()


def finished(
    screener: Screener, base: Predictions, out: Path, disturbances: Mapping[str, Disturbance] = DISTURBANCES
) -> bool:
    """Whether `write_disturbed` has ended in `out` for this very table and model, with no error that is new."""
    job = _job(screener, base, disturbances)
    tables = [_made(screener, file, job) for file in _files(out, disturbances).values()]
    return (out / INDEX).exists() and all(
        table is not None and all(was.error or row.error is None for row, was in zip(table, base, strict=True))
        for table in tables
    )


def _files(out: Path, disturbances: Mapping[str, Disturbance]) -> dict[str, Path]:
    return {name: out / f"disturbed-{k:02d}.json" for k, name in enumerate(disturbances)}


def _made(screener: Screener, file: Path, job: str) -> Predictions | None:
    """The table that this job has made; none of a server that does not tell the digest of its model."""
    return read_finished(file, job) if screener.engine.digest else None


def _job(screener: Screener, base: Predictions, disturbances: Mapping[str, Disturbance]) -> str:
    """SHA-256 of all that decides the tables; a model on a server is known by its place and versions, too."""
    rows = [(row.file, row.digest) for row in base]
    about = screener.describe()
    what = [about["sha256"], dict(base.model), base.threshold, list(disturbances), rows]
    what += [about["contract"], about["server"]] if "server" in about else []
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
