"""A second label set beside the first: relabellings published as lists, applied without touching a file.

A list names images or whole studies, one a line, each with its new label: `path,label`. Paths may begin with the
name of the release and may end with a slash; the label suffix of a study folder does not matter. The lists of
Better-MURA are of this form, but for `changed_studies.txt`, which names images alone: all of them turned abnormal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mskscreen.data.findings import Findings
from mskscreen.data.manifest import Manifest
from mskscreen.data.mura import image_key, read_lines
from mskscreen.errors import DataError

_HEADERS = ("path", "image", "study", "file", "filename")
_LABELS = {"0": 0, "1": 1}
# What becomes of a study whose images have come to differ, from its number of abnormal images and of images.
RULES: dict[str, Callable[[int, int], int | None]] = {
    "any": lambda abnormal, _: int(abnormal > 0),
    "majority": lambda abnormal, images: int(2 * abnormal >= images),
    "image": lambda *_: None,
}


class SplitStudy(NamedTuple):
    """A study that a list gave both labels, first at `place`; `resolved` is None where it stays split."""

    place: str
    images: int
    abnormal: int
    resolved: int | None


def overlay(
    manifest: Manifest, file: Path, *, name: str, rule: str = "any", listed_as: int | None = None
) -> tuple[Manifest, Findings, list[SplitStudy]]:
    """The manifest with a column `label_NAME`, what was found in the list, and the studies it split.

    `rule` says what a split study becomes: `any` (abnormal as soon as one image is), `majority` (abnormal from
    half of the images on) or `image` (every image keeps its own). `listed_as` is the label of lines that have
    none. Lines that name nothing in the manifest, have no label, or contradict each other are refused. Raises
    DataError where the name or the rule cannot be used or the file cannot be read.
    """
    column = f"label_{name}"
    if rule not in RULES:
        raise DataError(f"rule '{rule}' is unknown; use {', '.join(RULES)}")
    if not name.isidentifier() or column in manifest.columns:
        raise DataError(f"the label set cannot be called '{name}'; use another name of letters, digits and _")
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    findings = Findings()
    images = {image_key(image): [row] for row, image in enumerate(manifest["image"])}
    studies: dict[str, list[int]] = {}
    for row, study in enumerate(manifest["study"]):
        studies.setdefault(study or f"\0{row}", []).append(row)
    labels = list(manifest["label"])
    first_line: dict[str, int] = {}
    listed = list(_listed(file, images, studies, findings, listed_as))
    # Whole studies first: a line about one image is the more exact one.
    for whole in (True, False):
        for line, key, label in listed:
            if (key in studies) == whole:
                for row in studies[key] if whole else images[key]:
                    labels[row] = label
                    first_line.setdefault(manifest["study"][row] or "", line)
    split = list(_resolve(labels, studies, first_line, rule, file.name))
    changed = [(old, new) for old, new in zip(manifest["label"], labels, strict=True) if old != new]
    note = {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "rule": rule,
        "to_abnormal": sum(new == 1 for _, new in changed),
        "to_normal": sum(new == 0 for _, new in changed),
        "split_studies": len(split),
    }
    notes: dict[str, Any] = {**manifest.notes.get("overlays", {}), name: note}
    return manifest.replace({**manifest.columns, column: labels}, overlays=notes), findings, split


def _listed(
    file: Path,
    images: dict[str, list[int]],
    studies: dict[str, list[int]],
    findings: Findings,
    listed_as: int | None,
) -> Iterator[tuple[int, str, int]]:
    """Line, key and label of what the list says without contradicting itself."""
    said: dict[str, tuple[int, int]] = {}
    contradicted: set[str] = set()
    for line, fields in read_lines(file):
        if line == 1 and fields[0].strip().lower() in _HEADERS:
            continue
        key = image_key(fields[0])
        text = fields[1].strip() if len(fields) > 1 else ""
        label = _LABELS.get(text) if text else listed_as
        if key not in images and key not in studies:
            findings.add("neither an image nor a study of the manifest", file.name, line, refused=True)
        elif label is None:
            kind = "label other than 0 or 1" if text else "line without label, and none was declared for such"
            findings.add(kind, file.name, line, refused=True)
        elif said.setdefault(key, (line, label))[1] != label:
            findings.add("contradicts an earlier line", file.name, line, refused=True)
            contradicted.add(key)
    yield from ((line, key, label) for key, (line, label) in said.items() if key not in contradicted)


def _resolve(
    labels: list[int | None], studies: dict[str, list[int]], first_line: dict[str, int], rule: str, file: str
) -> Iterator[SplitStudy]:
    """Apply the rule to each study that was touched and holds both labels."""
    for study, line in first_line.items():
        rows = studies.get(study, [])
        values = [labels[row] for row in rows]
        if 0 in values and 1 in values:
            resolved = RULES[rule](values.count(1), len(values))
            if resolved is not None:
                for row in rows:
                    labels[row] = resolved
            yield SplitStudy(f"{file}:{line}", len(values), values.count(1), resolved)
