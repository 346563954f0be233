"""The report on maps: methods by measures with intervals and cost, parts, and a gallery."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.evaluation.estimates import Estimate
from mskscreen.evaluation.explain.explainer import TITLES
from mskscreen.evaluation.explain.faithful import FAITHFUL
from mskscreen.evaluation.explain.score import AGREEMENT, GAIN, REFERENCES, Case, Row
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.page import page
from mskscreen.evaluation.report.tables import cell, table
from mskscreen.storage import write_text

# Title, and whether more is better.
MEASURES: Mapping[str, tuple[str, bool]] = {
    "pointing": ("Pointing game", True),
    GAIN: ("Pointing game less location prior", True),
    "iou_otsu": ("IoU at Otsu", True),
    "iou_fixed": ("IoU at fixed level", True),
    "pixel_ap": ("Pixel AP", True),
    "energy": ("Energy in mask", True),
    "insertion": ("Insertion AUC", True),
    "deletion": ("Deletion AUC", False),
    "road": ("ROAD", True),
    "infidelity": ("Infidelity", False),
    FAITHFUL[-1]: ("Rank correlation with counterfactual map", True),
}


def write_report(
    path: Path, rows: Sequence[Row], about: Mapping[str, Any], shown: Sequence[tuple[Case, Image.Image]]
) -> None:
    """Write the report whole or not at all."""
    write_text(path, render(rows, about, shown))


def render(rows: Sequence[Row], about: Mapping[str, Any], shown: Sequence[tuple[Case, Image.Image]]) -> str:
    """The report as the text of one HTML file."""
    title = f"Maps of {about.get('model', 'a model')}, measured"
    parts = [part for part in dict.fromkeys(row.part for row in rows) if part != "all"]
    body = tag(
        "body",
        tag("h1", title),
        tag("p", f"A map shows what the model used, not where the lesion is. {NOT_FOR_DIAGNOSIS.capitalize()}."),
        tag(
            "p",
            "Only images that the classifier got right, and whose abnormality can be seen. Intervals: 95 %, by "
            "bootstrap over patients. The priors and the random map know no image.",
        ),
        tag(
            "dl", *(tag(name, text) for key, value in about.items() for name, text in (("dt", key), ("dd", value)))
        ),
        tag("h2", "Agreement with the truth"),
        _table(rows, "all", (*AGREEMENT[:1], GAIN, *AGREEMENT[1:])),
        tag("h2", "Faithfulness to the model"),
        _table(rows, "all", FAITHFUL),
        [
            [tag("h2", part.capitalize()), _table(rows, part, (AGREEMENT[0], GAIN, *AGREEMENT[3:]))]
            for part in parts
        ],
        tag("h2", "Gallery"),
        tag("p", "This page holds pictures: where they show patients it is for local use only.", class_="banner"),
        tag("div", *(_picture(case, picture) for case, picture in shown), class_="gallery"),
    )
    return page(title, body)


def lines(rows: Sequence[Row], part: str = "all") -> list[dict[str, Any]]:
    """A part of the table as plain values for the terminal and JSON, one line a method."""
    found = []
    for row in rows:
        if row.part == part:
            line: dict[str, Any] = {"method": TITLES.get(row.method, row.method), "images": row.cases}
            line["passes"] = round(row.passes, 1)
            found.append(line | {name: _value(row.measures.get(name)) for name in _taken(rows, part)})
    return found


def markdown(rows: Sequence[Row], part: str = "all") -> str:
    """A part of the table in Markdown, values with their intervals."""
    names = _taken(rows, part)
    head = [
        "method",
        "passes",
        *(MEASURES[name][0] + ("" if MEASURES[name][1] else " (low is good)") for name in names),
    ]
    text = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        if row.part == part:
            values = [str(row.measures.get(name, "-")) for name in names]
            text.append(f"| {' | '.join([TITLES.get(row.method, row.method), f'{row.passes:.0f}', *values])} |")
    return "\n".join(text) + "\n"


def _taken(rows: Sequence[Row], part: str) -> list[str]:
    known = {name for row in rows if row.part == part for name in row.measures}
    return [name for name in MEASURES if name in known]


def _value(estimate: Estimate | None) -> str | None:
    return None if estimate is None or estimate.value is None else str(estimate)


def _table(rows: Sequence[Row], part: str, names: Sequence[str]) -> Markup:
    names = [name for name in names if name in _taken(rows, part)]
    if not names:
        return tag("p", "Not measured: name the model with --model.")
    chosen = [row for row in rows if row.part == part]
    # Those that know no image are set apart below.
    chosen.sort(key=lambda row: row.method in REFERENCES)
    titles = [MEASURES[name][0] + ("" if MEASURES[name][1] else " (low is good)") for name in names]
    body = [
        [
            TITLES.get(row.method, row.method),
            row.cases,
            f"{row.passes:.0f}",
            *(cell(row.measures.get(n)) for n in names),
        ]
        for row in chosen
    ]
    return tag("div", table(("Method", "Images", "Passes", *titles), body), class_="wide")


def _picture(case: Case, picture: Image.Image) -> Markup:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return tag(
        "div",
        tag("b", f"{case.joint}, {case.truth.kind or 'kind unknown'}"),
        tag("img", src=f"data:image/jpeg;base64,{data}", alt="overlay", loading="lazy"),
        class_="case",
    )
