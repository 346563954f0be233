"""The Pareto front: cells that no other cell beats in both AUROC and latency, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.evaluation.report import charts
from mskscreen.evaluation.report.charts import BLUE, GREY, Axes
from mskscreen.evaluation.report.markup import Markup, tag

_TICKS = 5


@dataclass(frozen=True)
class Point:
    """A cell by its number in the leaderboard, with its latency in milliseconds and its AUROC."""

    number: int
    latency: float
    auroc: float


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals in one respect and beats in the other, fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.latency, -p.auroc)):
        if not best or point.auroc > best[-1].auroc:
            best.append(point)
    return best


def pareto_chart(points: Sequence[Point]) -> tuple[Markup, Markup]:
    """The chart as a drawing (SVG) and as a figure with its title and legend; numbers are those of the table."""
    best = front(points)
    axes = Axes(
        "latency of one image on one core (ms)",
        "abnormality AUROC",
        _padded([p.latency for p in points]),
        _padded([p.auroc for p in points]),
    )
    parts = _grid(axes)
    path = " ".join(f"{axes.x(p.latency)},{axes.y(p.auroc)}" for p in best)
    parts.append(tag("polyline", points=path, fill="none", stroke=BLUE, stroke_width=2))
    for point in points:
        x, y = axes.x(point.latency), axes.y(point.auroc)
        filled = BLUE if point in best else "#ffffff"
        parts.append(tag("circle", cx=x, cy=y, r=4, fill=filled, stroke=BLUE if point in best else GREY))
        parts.append(_text(x + 7, y + 4, str(point.number), "start"))
    title = "Abnormality AUROC against latency"
    drawing = charts.svg(title, parts)
    legend = [tag("span", "filled and joined: no other cell is both faster and better")]
    return drawing, charts.figure(title, drawing, legend)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _grid(axes: Axes) -> list[object]:
    (left, right), (bottom, top) = axes.x_range, axes.y_range
    parts: list[object] = []
    for value in np.linspace(left, right, _TICKS + 2)[1:-1]:
        x = axes.x(float(value))
        parts.append(tag("line", x1=x, y1=axes.y(bottom), x2=x, y2=axes.y(top), stroke="#e6e6e6"))
        parts.append(_text(x, axes.y(bottom) + 16, f"{value:.3g}", "middle"))
    for value in np.linspace(bottom, top, _TICKS + 2)[1:-1]:
        y = axes.y(float(value))
        parts.append(tag("line", x1=axes.x(left), y1=y, x2=axes.x(right), y2=y, stroke="#e6e6e6"))
        parts.append(_text(axes.x(left) - 6, y + 4, f"{value:.3f}", "end"))
    parts.append(_text(charts.WIDTH / 2, charts.HEIGHT - 6, axes.x_label, "middle"))
    middle = charts.HEIGHT / 2
    turned = f"rotate(-90 11 {middle:g})"
    parts.append(tag("text", axes.y_label, x=11, y=middle, text_anchor="middle", font_size=12, transform=turned))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor, font_size=12, font_family="sans-serif")
