"""Batch prediction on a Ray cluster: the files are shared out by Ray Data, and the rows come back in their order.

Every node needs mskscreen, and the images and the model at the same paths. A part on a node that went away is done
again on another; rows are those of one machine, since every node must run the model as the caller does.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mskscreen.errors import MskscreenError
from mskscreen.inference.backends import reason_of
from mskscreen.inference.grouping import StudyBy
from mskscreen.inference.screener import Screener
from mskscreen.pixels import Limits
from mskscreen.predictions import Prediction, row_of

# Files of one task: few enough that a lost node costs little, many enough that a task is worth its start.
_FILES = 32
_USUAL = Limits()


def stream_on_ray(
    files: Sequence[Path],
    model: str,
    about: Mapping[str, Any],
    *,
    study_by: StudyBy = "auto",
    limits: Limits = _USUAL,
    unapproved: bool = False,
) -> Generator[Prediction]:
    """Rows of `Screener.stream`, made by the cluster at `$RAY_ADDRESS`, one that runs here, or one started here.

    `about` is what `Screener.describe` says of the model at the operating point; nodes where it would differ are
    refused. `unapproved` is as in `Screener.load`. Raises MskscreenError where the cluster fails.
    """
    if not files:
        return
    # The prediction of a hospital's files is nobody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import RayError

    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # those of Ray share no base class
            where = os.environ.get("RAY_ADDRESS", "of this machine")
            raise MskscreenError(f"the Ray cluster {where} cannot be used ({reason_of(error)})") from error
    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # now that Ray Data, just imported, has set its own
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    # Names need not be UTF-8, so they travel as the bytes that they are.
    names = [{"file": os.fsencode(path)} for path in files]
    parts = ray.data.from_items(names, override_num_blocks=-(-len(names) // _FILES))
    shared: dict[str, Any] = {"model": model, "about": dict(about), "study_by": study_by, "limits": limits}
    task = functools.partial(_screen, **shared, unapproved=unapproved, folder=str(Path.cwd()))
    rows = parts.map_batches(task, batch_size=None, num_cpus=1).iter_rows()
    try:
        for row in rows:
            yield row_of(json.loads(row["row"]))
    except RayError as error:
        raise MskscreenError(f"the Ray cluster failed ({reason_of(error)})") from error


def _screen(
    batch: Mapping[str, Iterable[bytes]],
    *,
    model: str,
    about: dict[str, Any],
    study_by: StudyBy,
    limits: Limits,
    unapproved: bool,
    folder: str,
) -> dict[str, list[str]]:
    """Score the files of one task, on whichever node it runs; names are relative to `folder`."""
    os.chdir(folder)
    screener = _screener(model, about["engine"], about["precision"], about["reading"], limits, unapproved)
    at = about["operating_point"]
    if (found := screener.describe(at)) != about:
        differing = ", ".join(sorted(key for key in about if found.get(key) != about[key]))
        raise MskscreenError(f"a node runs the model otherwise ({differing} differ); install the same everywhere")
    paths = [Path(os.fsdecode(name)) for name in batch["file"]]
    rows = screener.stream(paths, at=at, study_by=study_by, workers=1)
    return {"row": [json.dumps(dataclasses.asdict(row)) for row in rows]}


@functools.lru_cache(1)
def _screener(model: str, engine: Any, precision: Any, reading: Any, limits: Limits, unapproved: bool) -> Screener:
    """The model, opened once in each process of the cluster."""
    if engine == "remote":
        return Screener(remote=model, reading=reading, limits=limits)
    chosen = {"engine": engine, "precision": precision, "unapproved": unapproved}
    return Screener.load(model, **chosen, threads=1, reading=reading, limits=limits)
