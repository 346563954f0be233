"""The audit of a data set: measures of every image, flags from them and from the manifest, a table and a page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.data.audit.duplicates import exact_pairs, groups, near_pairs
from mskscreen.data.audit.measure import THUMB, VERSION, crashed, flags_of, measure
from mskscreen.data.audit.noise import label_noise
from mskscreen.data.audit.page import write_page
from mskscreen.data.audit.result import Audit, read_audit
from mskscreen.data.audit.rotation import GAIN, JointHead, find_turns
from mskscreen.data.folds import require_labels
from mskscreen.data.journal import Journal
from mskscreen.data.manifest import Manifest
from mskscreen.data.tree import Tree
from mskscreen.errors import DataError
from mskscreen.lock import locked
from mskscreen.predictions import Predictions
from mskscreen.workers import in_blocks

BLOCK = 64


@dataclass(frozen=True)
class Options:
    """What an audit takes beside the images.

    `joint_head` finds rotated images and `joint_head_name` identifies it; `predictions` are out-of-fold tables
    for label noise; `labels` names the label column.
    """

    joint_head: JointHead | None = None
    joint_head_name: str = ""
    predictions: Sequence[Predictions] = ()
    labels: str = "label"

    def digest(self, manifest: Manifest) -> str:
        """Identity of an audit of this manifest with these options."""
        hasher = hashlib.sha256(json.dumps([VERSION, manifest.digest, self.joint_head_name, self.labels]).encode())
        for table in self.predictions:
            hasher.update(table.dumps("csv").encode())
        return hasher.hexdigest()


def audit(
    manifest: Manifest,
    folder: Path,
    options: Options | None = None,
    *,
    workers: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], bool]:
    """Audit a data set into `folder`: `audit.parquet`, `audit.html`, and `*.jsonl` to resume from.

    Returns the summary, and whether anything had to be done: the same audit again only reads it. `advance` is told
    how many images were measured, and then how many the joint head has seen. Raises DataError where the label
    column or the predictions do not fit, before any image is read, and where another process audits into the same
    folder.
    """
    options = options or Options()
    require_labels(manifest, options.labels)
    key = options.digest(manifest)
    with locked(folder / "audit.lock", "this audit"):
        if (done := _finished(manifest, folder, key)) is not None:
            advance(len(manifest))
            return done, False
        quality, wrong = (
            label_noise(manifest, options.predictions, options.labels) if options.predictions else ({}, set())
        )
        labels = manifest[options.labels]
        measured = _measure_all(manifest, folder, workers, advance)
        result = Audit(manifest, measured, [flags_of(item) for item in measured])
        _find_duplicates(result, labels)
        result.flag("both-labels", _mixed(manifest["study"], labels))
        result.flag("patient-across-splits", _mixed(manifest["patient"], manifest["split"]))
        if options.joint_head is not None:
            _find_rotated(result, options.joint_head, options.joint_head_name, folder, advance)
        if options.predictions:
            result.columns["label_quality"] = [quality.get(study) for study in manifest.studies]
            result.flag("label-noise", [row for row, study in enumerate(manifest.studies) if study in wrong])
        write_page(folder / "audit.html", result)
        result.write(folder / "audit.parquet", key)
        return result.summary, True


def _measure_all(
    manifest: Manifest, folder: Path, workers: int, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    images = list(manifest["image"])
    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    identity = hashlib.sha256(json.dumps([VERSION, images, list(manifest["bytes"])]).encode()).hexdigest()
    journal = Journal(folder / "measures.jsonl", identity)
    try:
        tree = manifest.tree
        done = {
            record["block"]: record["measures"]
            for record in journal.records
            if _unchanged(tree, blocks[record["block"]], [item["modified"] for item in record["measures"]])
        }
        advance(sum(map(len, done.values())))
        todo = [number for number in range(len(blocks)) if number not in done]
        results = in_blocks(
            partial(measure, manifest.tree),
            [blocks[number] for number in todo],
            workers=workers,
            crashed=partial(crashed, manifest.tree),
        )
        for position, block in results:
            done[todo[position]] = block
            journal.append({"block": todo[position], "measures": block})
            advance(len(block))
    finally:
        journal.close()
    return [item for number in range(len(blocks)) for item in done[number]]


def _find_duplicates(result: Audit, labels: Sequence[int | None]) -> None:
    measured, manifest = result.measured, result.manifest
    exact = groups(len(measured), exact_pairs([item.get("pixels") for item in measured]))
    # Hashes of images without content say nothing.
    usable = [row for row, names in enumerate(result.flags) if not {"unreadable", "near-constant"} & set(names)]
    hashes = np.array([int(measured[row]["hash"], 16) for row in usable], np.uint64)
    thumbs = np.frombuffer(b"".join(base64.b64decode(measured[row]["thumb"]) for row in usable), np.uint8)
    pairs = (
        (usable[i], usable[j]) for i, j in near_pairs(hashes, thumbs.reshape(-1, THUMB**2).astype(np.float32))
    )
    near = groups(len(measured), pairs)
    result.columns |= {"exact_group": exact, "near_group": near}
    result.flag("exact-duplicate", [row for row, group in enumerate(exact) if group is not None])
    result.flag("near-duplicate", [r for r, group in enumerate(near) if group is not None and exact[r] is None])
    scopes = {
        "duplicate-across-splits": manifest["split"],
        "duplicate-across-patients": manifest["patient"],
        "duplicate-labels-differ": labels,
    }
    for group in (exact, near):
        for name, values in scopes.items():
            result.flag(name, _mixed(group, values))


def _find_rotated(
    result: Audit, joint_head: JointHead, name: str, folder: Path, advance: Callable[[int], None]
) -> None:
    manifest = result.manifest
    seen = [name, GAIN, list(manifest["image"]), list(manifest["joint"])]
    seen.append([item["modified"] for item in result.measured])
    journal = Journal(folder / "turns.jsonl", hashlib.sha256(json.dumps(seen).encode()).hexdigest())
    try:
        turns = find_turns(manifest, result.measured, joint_head, journal, advance)
    finally:
        journal.close()
    result.columns["turn"] = turns
    result.flag("rotated", [row for row, turn in enumerate(turns) if turn])


def _mixed(groups_of: Sequence[Any], values: Sequence[Any]) -> list[int]:
    """Rows of the groups that hold more than one value; null is neither a group nor a value."""
    held: dict[Any, set[Any]] = {}
    for group, value in zip(groups_of, values, strict=True):
        if group is not None and value is not None:
            held.setdefault(group, set()).add(value)
    return [row for row, group in enumerate(groups_of) if len(held.get(group, ())) > 1]


def _unchanged(tree: Tree, images: Sequence[str], modified: Sequence[int | None]) -> bool:
    return all(tree.size_and_time(image)[1] == time for image, time in zip(images, modified, strict=True))


def _finished(manifest: Manifest, folder: Path, key: str) -> list[dict[str, Any]] | None:
    """The summary of a whole audit with this key and of files that have not changed since, or None."""
    if not (folder / "audit.html").is_file():
        return None
    try:
        columns, done, summary = read_audit(folder / "audit.parquet")
    except DataError:
        return None
    same = done == key and _unchanged(manifest.tree, manifest["image"], columns["modified"])
    return summary if same else None
