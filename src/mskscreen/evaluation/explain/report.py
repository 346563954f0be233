"""The report on maps: methods by measures with intervals and cost, parts, and a gallery."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.evaluation.explain.cases import Case, Joined, resampled
from mskscreen.evaluation.explain.explainer import TITLES
from mskscreen.evaluation.explain.faithful import COUNTERFACTUAL, FAITHFUL
from mskscreen.evaluation.explain.score import AGREEMENT, GAIN, REFERENCES, Row
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.page import page
from mskscreen.evaluation.report.tables import cell, table
from mskscreen.storage import write_text

# Title, and whether more is better.
MEASURES: Mapping[str, tuple[str, bool]] = {
    "pointing": ("Pointing game", True),
    GAIN: ("Pointing game less the better prior", True),
    "iou_otsu": ("IoU at Otsu", True),
    "iou_fixed": ("IoU at fixed level", True),
    "pixel_ap": ("Pixel AP", True),
    "energy": ("Energy in mask", True),
    "insertion": ("Insertion AUC", True),
    "deletion": ("Deletion AUC", False),
    "road": ("ROAD", True),
    "infidelity": ("Infidelity", False),
    COUNTERFACTUAL: ("Rank correlation with counterfactual map", True),
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
    judged = any("pointing" in row.measures for row in rows)
    body = tag(
        "body",
        tag("h1", title),
        tag("p", f"A map shows what the model used, not where the lesion is. {NOT_FOR_DIAGNOSIS.capitalize()}."),
        tag(
            "p",
            (
                "Only images that the classifier got right, and whose abnormality can be seen."
                if judged
                else "The truth of these images was not told: whether they were called right is unknown, and "
                "agreement with the truth was not measured."
            )
            + " The priors and the random map know no image.",
        ),
        tag(
            "dl", *(tag(name, text) for key, value in about.items() for name, text in (("dt", key), ("dd", value)))
        ),
        tag("h2", "Agreement with the truth"),
        _table(rows, "all", (*AGREEMENT[:1], GAIN, *AGREEMENT[1:]), "the truth with --truth"),
        tag("h2", "Faithfulness to the model"),
        _table(rows, "all", FAITHFUL, "the model with --model"),
        [
            [
                tag("h2", part.capitalize()),
                _table(rows, part, (AGREEMENT[0], GAIN, *AGREEMENT[3:]) if judged else FAITHFUL),
            ]
            for part in parts
        ],
        tag("h2", "Gallery"),
        tag("p", "This page holds pictures: where they show patients it is for local use only.", class_="banner"),
        tag("div", *(_picture(case, picture) for case, picture in shown), class_="gallery"),
    )
    return page(title, body)


def lines(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The table of all images as text for the terminal, one line a method."""
    found = []
    for row in rows:
        if row.part == "all":
            line: dict[str, Any] = {"method": TITLES.get(row.method, row.method), "images": row.cases}
            line["passes"] = round(row.passes, 1)
            found.append(line | {name: _value(row, name) for name in _taken(rows, "all")})
    return found


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All parts of the table as numbers for machines; a measure that was not taken is null."""
    return [
        {
            "part": row.part,
            "method": row.method,
            "images": row.cases,
            "passes": row.passes,
            "measures": {
                name: None
                if found.value is None
                else {
                    "value": found.value,
                    "interval": found.interval and list(found.interval),
                    "images": row.images[name],
                }
                for name, found in row.measures.items()
            },
        }
        for row in rows
    ]


def described(joined: Joined, levels: Mapping[str, float]) -> dict[str, Any]:
    """What the head of a report says: the model, the cases, and over what intervals are drawn."""
    classes = {record.of for case in joined.cases for record in case.records.values()}
    return {
        "model": joined.model.get("name", "a model"),
        "class explained": classes.pop() if len(classes) == 1 else "the joint that was predicted",
        "images": joined,
        "patients": len({case.patient for case in joined.cases if case.patient_known}) or "unknown",
        "intervals": f"95 %, by bootstrap over {resampled(joined.cases)}",
        "fixed level of IoU": level_text(levels),
    }


def level_text(levels: Mapping[str, float]) -> str:
    """The fixed levels of IoU in words: one, or one a method."""
    if len(set(levels.values())) == 1:
        return f"{next(iter(levels.values())):.2f} of the peak"
    return ", ".join(f"{TITLES.get(name, name)} {level:.2f}" for name, level in levels.items()) or "not chosen"


def markdown(rows: Sequence[Row], part: str = "all") -> str:
    """A part of the table in Markdown, values with their intervals."""
    names = _taken(rows, part)
    head = ["method", "images", "passes", *map(_title, names)]
    text = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        if row.part == part:
            values = [_value(row, name) or "-" for name in names]
            line = [TITLES.get(row.method, row.method), str(row.cases), f"{row.passes:.0f}", *values]
            text.append(f"| {' | '.join(line)} |")
    return "\n".join(text) + "\n"


def _title(name: str) -> str:
    title, more_is_better = MEASURES[name]
    return title if more_is_better else f"{title} (low is good)"


def _taken(rows: Sequence[Row], part: str) -> list[str]:
    known = {name for row in rows if row.part == part for name in row.measures}
    return [name for name in MEASURES if name in known]


def _value(row: Row, name: str) -> str | None:
    estimate = row.measures.get(name)
    if estimate is None or estimate.value is None:
        return None
    return str(estimate) + _fewer(row, name)


def _fewer(row: Row, name: str) -> str:
    """On how many images a measure was taken, where these are fewer than have a map."""
    return f", n = {row.images[name]}" if row.images.get(name, row.cases) < row.cases else ""


def _table(rows: Sequence[Row], part: str, names: Sequence[str], missing: str = "") -> Markup:
    names = [name for name in names if name in _taken(rows, part)]
    if not names:
        return tag("p", f"Not measured: name {missing}.")
    chosen = [row for row in rows if row.part == part]
    # Those that know no image are set apart below.
    chosen.sort(key=lambda row: row.method in REFERENCES)
    body = [
        [
            TITLES.get(row.method, row.method),
            row.cases,
            f"{row.passes:.0f}",
            *(tag("span", cell(row.measures.get(n)), tag("small", _fewer(row, n))) for n in names),
        ]
        for row in chosen
    ]
    return tag("div", table(("Method", "Images", "Passes", *map(_title, names)), body), class_="wide")


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
