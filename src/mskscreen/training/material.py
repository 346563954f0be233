"""What a run learns from: a manifest with folds, its decoded images, and whether they can teach the tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mskscreen.anatomy import ABNORMALITY_LABELS, JOINT_LABELS
from mskscreen.data.cache import CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.data.folds import held_out_rows, require_labels, split, training_rows
from mskscreen.data.manifest import Manifest
from mskscreen.data.sources import read_source
from mskscreen.errors import DataError
from mskscreen.networks import NETWORKS, Architecture
from mskscreen.pixels import Preprocessing
from mskscreen.training.augment import Augmentation
from mskscreen.training.loader import UNKNOWN, RadiographDataset, joint_numbers
from mskscreen.training.losses import learned
from mskscreen.training.protocol import Protocol

DEVELOPMENT_SHARE = 0.1
_DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Material:
    """Training images, and the part of the development fold that this process scores.

    `fold` is the manifest of the whole development fold, `errors` says of its images why one could not be decoded,
    and `mine` which of them are in `development`.
    """

    training: RadiographDataset
    development: RadiographDataset
    mine: np.ndarray
    fold: Manifest
    errors: tuple[str | None, ...]
    notes: tuple[str, ...]


def read_data(data: Path, protocol: Protocol) -> Manifest:
    """The manifest of a file, or of a folder of images, with folds: what has none gets one of patients with a
    tenth of its images.

    Raises DataError where there is no such data, label column or fold, or a label is none.
    """
    manifest = read_source(data)[0] if data.is_dir() else Manifest.read(data)
    if protocol.labels not in manifest.columns:
        known = ", ".join(name for name in manifest.columns if name.startswith("label"))
        raise DataError(f"{data}: has no label column '{protocol.labels}'; it has {known}")
    require_labels(manifest, protocol.labels)
    if "fold" not in manifest.columns:
        manifest = split(manifest, development=DEVELOPMENT_SHARE, labels=protocol.labels)
    held_out_rows(manifest, protocol.fold)
    return manifest


def preprocessing(protocol: Protocol) -> Preprocessing:
    """How images become the input of the network."""
    name = Architecture.parse(protocol.architecture).name
    size = protocol.input_size or (NETWORKS[name].input_size if name in NETWORKS else _DEFAULT_SIZE)
    return Preprocessing(size, size, fit=protocol.resize)


def gather(
    manifest: Manifest,
    protocol: Protocol,
    folder: Path,
    *,
    decoders: int = 1,
    rank: int = 0,
    ranks: int = 1,
    decoded: Callable[[int], None] = lambda _: None,
) -> Material:
    """Decode the images of a manifest, or open what was decoded before, and check that they can be learned from.

    Several runs may call it at once: one decodes, the others wait. Raises DataError where a class is missing, if
    possible before an image is decoded, or where `folder` cannot be made.
    """
    taught, held_out = training_rows(manifest, protocol.fold), held_out_rows(manifest, protocol.fold)
    _examine(manifest, protocol, taught, held_out, ranks)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}); choose another folder with --cache"
        ) from error
    contract = CacheContract(str(preprocessing(protocol)))
    cache, _ = build_cache(manifest, folder, contract, workers=decoders, wait=True, advance=decoded)
    fold = manifest.take(held_out)
    training = RadiographDataset(
        manifest.take(taught),
        cache,
        Augmentation.parse(protocol.augmentation),
        labels=protocol.labels,
    )
    whole = RadiographDataset(fold, cache, labels=protocol.labels)
    notes = (
        *_undecoded(training.dropped + whole.dropped),
        *_examine(manifest, protocol, taught[training.rows], held_out[whole.rows], ranks),
    )
    mine = np.arange(rank, len(fold), ranks)
    part = RadiographDataset(fold.take(mine), cache, labels=protocol.labels)
    errors = {entry.image: entry.error for entry in cache.entries if entry.error}
    return Material(training, part, mine, fold, tuple(map(errors.get, fold["image"])), notes)


def study_truth(manifest: Manifest, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the study (n,) of images `rows` (n,), and of each study whether one of its `labels` (n,) is 1."""
    _, study = np.unique(np.array(manifest.studies, str)[rows], return_inverse=True)
    return study, np.bincount(study, labels) > 0


def _undecoded(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count} images cannot be decoded and are left out; mskscreen data audit says which and why"]


def _examine(
    manifest: Manifest, protocol: Protocol, taught: np.ndarray, held_out: np.ndarray, ranks: int
) -> list[str]:
    """Sentences about the classes that the rows to learn from, or those of the development fold, lack.

    Raises DataError where a task cannot be learned or measured, or the images do not fill one step of all `ranks`.
    """
    if not len(taught):
        raise DataError(
            f"fold {protocol.fold} is the only one, so nothing is left to learn from; split the data again"
        )
    notes = [note for task in learned(protocol) for note in _lacking(task, manifest, protocol, taught, held_out)]
    needed = protocol.batch * protocol.accumulate * ranks
    if len(taught) < needed:
        raise DataError(f"{len(taught)} training images do not fill one step of {needed}; lower the key batch")
    return notes


def _lacking(
    task: str, manifest: Manifest, protocol: Protocol, taught: np.ndarray, held_out: np.ndarray
) -> list[str]:
    """Sentences about what is missing.

    Raises DataError where the task cannot be learned or measured: fewer than two classes.
    """
    abnormality = task == "abnormality"
    names, column, other = (
        (ABNORMALITY_LABELS, protocol.labels, "joint") if abnormality else (JOINT_LABELS, "joint", "abnormality")
    )
    truth = manifest.numbers(protocol.labels, UNKNOWN) if abnormality else joint_numbers(manifest)
    found = {}
    for part, rows in (("the training folds", taught), (f"development fold {protocol.fold}", held_out)):
        known = rows[truth[rows] >= 0]
        values, units = truth[known], "images"
        if abnormality and rows is held_out:
            # The figure that chooses the epoch is of studies.
            values, units = study_truth(manifest, known, values)[1].astype(int), "studies"
        classes = found[part] = {names[value] for value in np.unique(values)}
        if len(classes) < 2:
            only = f"only {units} of class '{min(classes)}'" if classes else "no image of known class"
            raise DataError(
                f"{part}: {only} in column '{column}', which the task {task} cannot be learned from; "
                f"add images of other classes, split again, or learn the other task alone: --tasks {other}"
            )
    (first, shown), (second, asked) = found.items()
    return [
        *(
            f"{first}: no image of class '{name}', which is therefore not learned"
            for name in sorted(asked - shown)
        ),
        *(
            f"{second}: no image of class '{name}', which is therefore not measured"
            for name in sorted(shown - asked)
        ),
    ]
