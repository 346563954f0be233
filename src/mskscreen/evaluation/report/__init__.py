"""The report: one HTML file that holds everything, asks no network for anything, and prints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.evaluation.assess import Assessment
from mskscreen.evaluation.report import figures, sections
from mskscreen.evaluation.report.checklists import CLAIM, STARD, Item
from mskscreen.evaluation.report.gallery import Pictures, gallery
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.page import page
from mskscreen.evaluation.report.tables import table
from mskscreen.storage import write_text

__all__ = ["Pictures", "render", "write_report"]

AUTHOR = "to be written by the author"


def render(a: Assessment, pictures: Pictures | None = None) -> str:
    """The report as the text of one HTML file."""
    pictures = pictures or Pictures()
    titled = (
        ("summary", "Summary and intended use", sections.summary(a)),
        ("flow", "Data flow", sections.flow(a)),
        ("main", "Results by joint", sections.main_table(a)),
        ("curves", "ROC and precision-recall", figures.curves(a)),
        ("calibration", "Calibration", figures.calibration(a)),
        ("confusion", "Confusion", sections.confusion(a)),
        ("forest", "Joints compared", figures.forest(a)),
        ("points", "Operating points", sections.points(a)),
        ("subgroups", "Subgroups", sections.subgroups(a)),
        ("selective", "Leaving hard studies to a person", sections.selective(a)),
        ("failures", "Worst errors", [*gallery(a, pictures), _pictures_note(pictures)]),
        ("robustness", "Robustness", sections.robustness(a)),
        *((("readers", "Agreement with readers", sections.agreement(a)),) if a.agreement else ()),
        ("provenance", "Provenance", sections.provenance(a)),
        ("stard", "STARD-AI checklist", [_checklist(STARD, a, numbers="STARD 2015")]),
        ("claim", "CLAIM checklist", [_checklist(CLAIM, a, numbers="CLAIM 2024")]),
    )
    model = str(a.joined.table.model.get("name") or a.joined.table.name)
    # A date that can be set keeps the file the same when it is made again.
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    date = (datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)).strftime("%Y-%m-%d")
    body = tag(
        "body",
        tag("h1", f"Evaluation of {model}"),
        tag(
            "p",
            f"{a.joined.table.name} judged by {a.joined.labels.name}, {date}. {NOT_FOR_DIAGNOSIS.capitalize()}.",
            class_="note",
        ),
        tag("nav", tag("ul", *(tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in titled))),
        *(tag("section", tag("h2", title), parts, id=key) for key, title, parts in titled),
    )
    return page(f"Evaluation of {model}", body)


def write_report(path: Path, a: Assessment, pictures: Pictures | None = None) -> None:
    """Write the report whole or not at all."""
    write_text(path, render(a, pictures))


def _pictures_note(pictures: Pictures) -> Markup:
    if pictures.images or pictures.maps:
        return tag(
            "p", "This page holds pictures: where they show patients it is for local use only.", class_="banner"
        )
    return tag("p", "No pictures: they are added with --images and --maps.", class_="note")


def _checklist(items: tuple[Item, ...], a: Assessment, numbers: str) -> Markup:
    answers = _answers(a)
    known = [answers.get(item.answer) or AUTHOR for item in items]
    rows = [
        [item.number, item.topic, tag("span", answer, class_="author" if answer == AUTHOR else None)]
        for item, answer in zip(items, known, strict=True)
    ]
    whole = sum(AUTHOR not in answer for answer in known)
    part = sum(AUTHOR in answer and answer != AUTHOR for answer in known)
    note = (
        f"{whole} of {len(items)} items are answered here and {part} in part. "
        f"Topics are in our words, numbers those of {numbers}."
    )
    return tag("div", tag("p", note, class_="note"), table(("Item", "Topic", "Answer"), rows, text=(1, 2)))


def _answers(a: Assessment) -> dict[str, str | None]:
    """What the software knows, by the keys of the checklists; None where it does not know."""
    contract, dev, overall = a.contract, a.development, a.study.overall
    trained = contract.provenance if contract else None
    settings = a.study.settings
    left_out = sum(step.images or 0 for step in a.joined.flow if step.what.startswith("left out"))
    return {
        "intended_use": contract.intended_use if contract else None,
        "data": trained.data or None if trained else None,
        "preprocessing": contract.preprocessing if contract else None,
        "flow": "section Data flow",
        "missing": f"{left_out} images without a score or a label are left out and counted (section Data flow)",
        "labels": f"labels of {a.joined.labels.name}; how they came about: {AUTHOR}",
        "disjoint": _disjoint(a),
        "model": f"{contract.architecture}, input {contract.input_size}" if contract else None,
        "versions": ", ".join(f"{k} {v}" for k, v in a.provenance["versions"].items()),
        "training": _protocol(trained.protocol) if trained else None,
        "metrics": "section Results by joint; formulas in docs/numbers.md",
        "intervals": f"95 % BCa intervals, {settings['resamples']} resamples of patients, seed {settings['seed']}",
        "robustness": "section Robustness" if a.robustness else None,
        "map": f"{contract.map.method} of the {contract.map.layer}" if contract and contract.map else None,
        "main": "section Results by joint",
        "partitions": f"evaluation: section Results by joint; other partitions: {AUTHOR}",
        "subgroups": "section Subgroups; clinical characteristics: " + AUTHOR,
        "failures": "section Worst errors",
        "provenance": "section Provenance gives the digests; access: " + AUTHOR,
        "points": f"chosen on {dev.studies} development studies" if dev else None,
        "blind": None if a.cases.table.hard else "the model sees pixels only, never a label or a file name",
        "undetermined": "section Leaving hard studies to a person" if a.conformal else None,
        "confusion": f"section Confusion ({overall.cases} studies)",
        "calibration": "section Calibration" if a.reliability else None,
    }


def _protocol(protocol: Mapping[str, Any]) -> str | None:
    plain = ", ".join(f"{k} {v}" for k, v in protocol.items() if not isinstance(v, Mapping))
    return f"{plain}; augmentation and duration: {AUTHOR}" if plain else None


def _disjoint(a: Assessment) -> str | None:
    said = []
    for what, part in (("training", a.training), ("development", a.development)):
        if part is not None and not getattr(part, "other_set", False):
            said.append(f"by patient over all joints: {part.shared_patients} patients in {what} and evaluation")
    if a.development and a.development.other_set:
        said.append("development studies are declared to be of another data set; no image is in both, by digest")
    if said and a.training is None:
        said.append(f"training studies: {AUTHOR}")
    return "; ".join(said) or None
