"""Tables of the report: estimates with intervals below them, and the reason where there is no value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mskscreen.evaluation.estimates import Estimate
from mskscreen.evaluation.metrics import ABNORMALITY
from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.summary import Group

MAIN = ("auroc", "accuracy", "sensitivity", "specificity", "kappa")


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, total: int = 0, text: Sequence[int] = ()
) -> Markup:
    """A table that becomes a list of cards on a narrow screen; the last `total` rows are set apart.

    `text` are the columns that hold words.
    """
    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_="text" if k in text else None) for k, name in enumerate(header)),
    )
    body = [
        tag(
            "tr",
            *(
                tag("td", cell, data_label=name, class_="text" if k in text else None)
                for k, (name, cell) in enumerate(zip(header, row, strict=True))
            ),
            class_="total" if i >= len(rows) - total else None,
        )
        for i, row in enumerate(rows)
    ]
    return tag("table", tag("thead", head), tag("tbody", *body), class_="stack")


def cell(estimate: Estimate | None) -> Markup:
    """A value with its interval, or a dash that tells its reason."""
    if estimate is None:
        return tag("span", "-")
    if estimate.value is None:
        return tag("span", "-", tag("small", estimate.reason, class_="why"))
    interval = estimate.interval
    if interval is None:
        return tag("span", number(estimate.value), tag("small", estimate.reason, class_="why"))
    return tag("span", number(estimate.value), tag("small", f"{number(interval.low)} to {number(interval.high)}"))


def sentence(reason: str | None) -> str:
    """A reason as a sentence."""
    return f"{reason[:1].upper()}{reason[1:]}." if reason else ""


def number(value: float) -> str:
    """Three decimals, and no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def group_rows(groups: Sequence[Group]) -> list[list[object]]:
    """Rows of groups: name, numbers and the metrics of `MAIN`, or why there are none."""
    rows: list[list[object]] = []
    for group in groups:
        shown: list[object] = [cell(group.abnormality.get(name)) for name in MAIN]
        if group.reason:
            shown = [tag("span", group.reason), *([""] * (len(MAIN) - 1))]
        rows.append([group.name, group.cases, group.abnormal, *shown])
    return rows


def metric_titles(metrics: Sequence[str] = MAIN) -> list[str]:
    """Titles of metrics of abnormality."""
    return [ABNORMALITY[name].title for name in metrics]


def two_by_two(cells: Mapping[str, int]) -> Markup:
    """The cross table of truth and call."""
    highest = max(*cells.values(), 1)

    def count(name: str) -> Markup:
        return _shaded(cells[name], cells[name] / highest)

    return tag(
        "table",
        tag("tr", tag("th"), tag("th", "called normal"), tag("th", "called abnormal")),
        tag("tr", tag("th", "normal"), count("tn"), count("fp")),
        tag("tr", tag("th", "abnormal"), count("fn"), count("tp")),
        class_="matrix",
    )


def matrix(counts: np.ndarray, names: Sequence[str]) -> Markup:
    """A confusion matrix (k, k), truth by row, shaded by the share of its row."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    short = [name[:4] for name in names]
    rows = [
        tag("tr", tag("th", name), *(_shaded(int(n), s) for n, s in zip(row, shares, strict=True)))
        for name, row, shares in zip(names, counts.tolist(), share.tolist(), strict=True)
    ]
    head = tag("tr", tag("th"), *(tag("th", name, title=full) for name, full in zip(short, names, strict=True)))
    return tag("div", tag("table", head, *rows, class_="matrix"), class_="wide")


def _shaded(count: int, share: float) -> Markup:
    """A cell whose blue grows with `share`, with ink that stays readable on it."""
    if share >= 0.6:
        return tag("td", count, style="background:#0072B2;color:#fff")
    pale = round(255 - 150 * share)
    return tag("td", count, style=f"background:rgb({pale},{(pale + 255) // 2},255)")
