"""Folds by patient over all joints, stratified by joint and label.

The column `fold` numbers the part of the data that is held out together: while fold k is held out, the rows of
the other folds train. Rows of the official evaluation splits, and of patients who appear there too, have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mskscreen.data.manifest import HELD_OUT, Manifest
from mskscreen.errors import DataError

DEVELOPMENT = 0
HELD_OUT_PART = "held out"
LEFT_OUT_PART = "left out"


def split(
    manifest: Manifest,
    *,
    folds: int | None = None,
    development: float | None = None,
    seed: int = 0,
    labels: str = "label",
) -> Manifest:
    """The manifest with a column `fold`: k equal folds, or a development fold 0 beside a training fold 1.

    Give either `folds` (at least 2) or `development`, the share of images in (0, 1) of the development fold.
    `labels` names the label column to stratify by. Raises DataError where there are fewer patients than folds, or
    where that column holds other than 0, 1 and null.
    """
    require_labels(manifest, labels)
    if (folds is None) == (development is None):
        raise DataError("give either a number of folds or the share of the development fold")
    if development is not None and not 0 < development < 1:
        raise DataError(f"the share of the development fold is {development}; use a number between 0 and 1")
    if folds is not None and folds < 2:
        raise DataError(f"the number of folds is {folds}; use 2 or more")
    shares = np.full(folds, 1 / folds) if folds else np.array([development, 1 - (development or 0)])
    groups = np.array(manifest.groups, object)
    held_out = np.isin(np.array(manifest["split"], object), HELD_OUT)
    # A patient of the evaluation set may not train, whatever the lists say.
    usable = ~np.isin(groups, list(set(groups[held_out])))
    names, member = np.unique(groups[usable].astype(str), return_inverse=True)
    if len(names) < len(shares):
        raise DataError(f"{len(names)} patients cannot fill {len(shares)} folds; index more data")
    fold = np.full(len(manifest), -1)
    fold[usable] = assign(_strata(manifest, labels, usable), member, shares, seed)[member]
    notes = {
        "folds": len(shares),
        "development": development,
        "seed": seed,
        "labels": labels,
        "data": manifest.digest,
        "patients_also_held_out": len(set(groups[~usable & ~held_out])),
    }
    column = [None if value < 0 else int(value) for value in fold]
    result = manifest.replace({**manifest.columns, "fold": column}, split=notes)
    shared = max(row["patients_shared"] or 0 for row in proof(result, labels))
    if shared:
        raise DataError(f"{shared} patients are in two folds; report this as a fault of mskscreen")
    return result


def require_labels(manifest: Manifest, labels: str) -> None:
    """Raise DataError where a column holds anything but 0 (normal), 1 (abnormal) and null (unknown)."""
    for row, value in enumerate(manifest[labels]):
        if value is not None and value not in (0, 1):
            raise DataError(
                f"column '{labels}': row {row} holds {value!r}, which is no label; it must be 0, 1 or null: "
                "name another column with --labels"
            )


def _strata(manifest: Manifest, labels: str, usable: np.ndarray) -> np.ndarray:
    """Stratum of each usable row: its joint and label, unknown values being a value too."""
    cells = [f"{joint} {label}" for joint, label in zip(manifest["joint"], manifest[labels], strict=True)]
    return np.unique(np.array(cells, str)[usable], return_inverse=True)[1]


def assign(strata: np.ndarray, member: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each group, so that every fold gets its share of every stratum as nearly as whole groups allow.

    `strata` and `member` (n,) are the stratum and the group of each row, `shares` (k,) sums to 1. Greedy: the
    largest groups first, each to the fold where the squared deviation relative to its share grows least; a fold
    that is empty gets one as soon as no more groups are left than empty folds.
    """
    groups, kinds = int(member.max()) + 1, int(strata.max()) + 1
    counts = np.zeros((groups, kinds))
    np.add.at(counts, (member, strata), 1)
    parts = counts / counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(groups)
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    filled = np.zeros((len(shares), kinds))
    empty = np.ones(len(shares), bool)
    fold = np.empty(groups, np.int64)
    for left, group in zip(range(groups, 0, -1), order, strict=True):
        part = parts[group]
        growth = ((2 * (filled - shares[:, None]) + part) * part).sum(axis=1) / shares
        if left <= empty.sum():
            growth[~empty] = np.inf
        chosen = int(growth.argmin())
        filled[chosen] += part
        empty[chosen] = False
        fold[group] = chosen
    return fold


def proof(manifest: Manifest, labels: str = "label") -> list[dict[str, Any]]:
    """One row a part (each fold, the rows held out, the rows left out), counted afresh from the columns.

    `patients_shared` is how many patients of a part are in any other part too; it is None for the rows left
    out, whose patients are those of the rows held out.
    """
    groups = manifest.groups
    parts = [
        f"fold {fold}" if fold is not None else HELD_OUT_PART if name in HELD_OUT else LEFT_OUT_PART
        for fold, name in zip(manifest["fold"], manifest["split"], strict=True)
    ]
    members: dict[str, set[str]] = {}
    for part, group in zip(parts, groups, strict=True):
        members.setdefault(part, set()).add(group)
    rows = []
    for part in sorted(members):
        others = set().union(*(members[name] for name in members if name not in (part, LEFT_OUT_PART)))
        shared = None if part == LEFT_OUT_PART else len(members[part] & others)
        here = [i for i, name in enumerate(parts) if name == part]
        rows.append(
            {
                "part": part,
                "patients": len(members[part]),
                "patients_shared": shared,
                **_balance(manifest, here, labels),
            }
        )
    return rows


def _balance(manifest: Manifest, rows: Sequence[int], labels: str) -> dict[str, Any]:
    values = [manifest[labels][i] for i in rows]
    known = [value for value in values if value is not None]
    joints = [manifest["joint"][i] for i in rows]
    studies = manifest.studies
    return {
        "studies": len({studies[i] for i in rows}),
        "images": len(rows),
        "positive": sum(known) / len(known) if known else None,
        **{joint: joints.count(joint) for joint in sorted({j for j in manifest["joint"] if j})},
    }


def held_out_rows(manifest: Manifest, fold: int) -> np.ndarray:
    """Rows of one fold.

    Raises DataError where the manifest has no such fold.
    """
    rows = np.flatnonzero(manifest.numbers("fold") == fold)
    if not len(rows):
        raise DataError(f"the manifest has no fold {fold}; split it with: mskscreen data split")
    return rows


def training_rows(manifest: Manifest, fold: int) -> np.ndarray:
    """Rows of all folds but one: never a row of the official evaluation splits."""
    held_out_rows(manifest, fold)
    folds = manifest.numbers("fold")
    return np.flatnonzero((folds >= 0) & (folds != fold))
