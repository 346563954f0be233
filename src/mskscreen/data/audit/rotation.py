"""Images that lie on their side: the model's own joint head recognises them once they are turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DecodeError
from mskscreen.pixels import read_radiograph

# From images, uint8 or uint16 (rows, columns) with bone bright, to probabilities of the joint types (n, 7).
JointHead = Callable[[Sequence[np.ndarray]], np.ndarray]

# By how much turning must raise the probability of the labelled joint type.
GAIN = 0.5
_BATCH = 8


def find_turns(manifest: Manifest, measured: Sequence[dict[str, Any]], joint_head: JointHead) -> list[int | None]:
    """Quarter turns to the left that set each image upright, 0 where it is or where no turn helps.

    None where the image is unreadable or its joint is not one of the seven. A model that was trained on turned
    images recognises them as they are and finds none.
    """
    turns: list[int | None] = [None] * len(manifest)
    index = {name: i for i, name in enumerate(JOINT_LABELS)}
    rows = [
        row for row, joint in enumerate(manifest["joint"]) if joint in index and measured[row]["error"] is None
    ]
    tree = manifest.tree
    for start in range(0, len(rows), _BATCH):
        views, chosen = [], []
        for row in rows[start : start + _BATCH]:
            try:
                radiograph = read_radiograph(tree.file(manifest["image"][row]))
            except DecodeError:
                continue
            chosen.append(row)
            # As deep as the source, so that the model's own window applies, or not, as it would to the file.
            kind = np.uint8 if radiograph.record.windowed else np.uint16
            pixels = np.rint(radiograph.pixels * np.iinfo(kind).max).astype(kind)
            views += [np.ascontiguousarray(np.rot90(pixels, turn)) for turn in range(4)]
        if not chosen:
            continue
        probabilities = joint_head(views).reshape(len(chosen), 4, len(JOINT_LABELS))
        for row, seen in zip(chosen, probabilities, strict=True):
            labelled = seen[:, index[manifest["joint"][row]]]
            best = int(labelled.argmax())
            turns[row] = best if labelled[best] - labelled[0] >= GAIN else 0
    return turns
