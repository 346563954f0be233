"""The shell of every report: one HTML file that asks nothing of a network and runs no script."""

from __future__ import annotations

from mskscreen.evaluation.report.markup import Markup, tag
from mskscreen.evaluation.report.style import CSS


def page(title: str, body: Markup) -> str:
    """The HTML text of a report with this title and `<body>` element."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
