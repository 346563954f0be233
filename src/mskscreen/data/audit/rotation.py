"""Images that lie on their side: the model's own joint head recognises them once they are turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.journal import Journal
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError, DecodeError
from mskscreen.pixels import read_radiograph

# From images, uint8 or uint16 (rows, columns) with bone bright, to probabilities of the joint types (n, 7).
JointHead = Callable[[Sequence[np.ndarray]], np.ndarray]

# By how much turning must raise the probability of the labelled joint type.
GAIN = 0.5
_BATCH = 8


def find_turns(
    manifest: Manifest,
    measured: Sequence[dict[str, Any]],
    joint_head: JointHead,
    journal: Journal,
    advance: Callable[[int], None] = lambda _: None,
) -> list[int | None]:
    """Quarter turns to the left that set each image upright, 0 where it is or where no turn helps.

    None where the image is unreadable or its joint is not one of the seven. A model that was trained on turned
    images recognises them as they are and finds none. `journal` keeps what was found, and a later call with the
    same one goes on from there; `advance` is told how many images were looked at.
    """
    turns: list[int | None] = [None] * len(manifest)
    rows = [
        row
        for row, joint in enumerate(manifest["joint"])
        if joint in JOINT_LABELS and measured[row]["error"] is None
    ]
    done = {record["start"]: record["turns"] for record in journal.records}
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        if start not in done:
            done[start] = _turns_of(manifest, batch, joint_head)
            journal.append({"start": start, "turns": done[start]})
        for row, turn in zip(batch, done[start], strict=True):
            turns[row] = turn
        advance(len(batch))
    return turns


def _turns_of(manifest: Manifest, rows: Sequence[int], joint_head: JointHead) -> list[int | None]:
    tree = manifest.tree
    views: dict[int, list[np.ndarray]] = {}
    for row in rows:
        try:
            radiograph = read_radiograph(tree.file(manifest["image"][row]))
        except (DecodeError, DataError):
            continue
        # As deep as the source, so that the model's own window applies, or not, as it would to the file.
        kind = np.uint8 if radiograph.record.windowed else np.uint16
        pixels = np.rint(radiograph.pixels * np.iinfo(kind).max).astype(kind)
        views[row] = [np.ascontiguousarray(np.rot90(pixels, turn)) for turn in range(4)]
    if not views:
        return [None] * len(rows)
    seen = joint_head([view for turned in views.values() for view in turned])
    probabilities = dict(zip(views, seen.reshape(len(views), 4, len(JOINT_LABELS)), strict=True))
    return [_best_turn(probabilities.get(row), manifest["joint"][row]) for row in rows]


def _best_turn(probabilities: np.ndarray | None, joint: str) -> int | None:
    """The turn after which the labelled joint is recognised, from probabilities (4, 7) after 0 to 3 turns."""
    if probabilities is None:
        return None
    labelled = probabilities[:, JOINT_LABELS.index(joint)]
    best = int(labelled.argmax())
    return best if labelled[best] - labelled[0] >= GAIN else 0
