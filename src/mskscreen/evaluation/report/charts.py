"""Charts as inline SVG, drawn at 360 pixels so that a telephone shows them in full size.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which the colour-blind tell apart; every
series also differs by dash or marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.evaluation.report.markup import Markup, tag

BLUE, GREEN, VERMILLION = "#0072B2", "#009E73", "#D55E00"
GREY, INK = "#8a8a8a", "#1a1a1a"
WIDTH, HEIGHT = 360, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 42
_DASHES = (None, "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Series:
    """A line (k,) with an optional band, in data units; NaN leaves a gap at the ends."""

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: str = BLUE
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    markers: bool = False


@dataclass(frozen=True)
class Axes:
    """Ranges and labels of a chart; `diagonal` draws the line from corner to corner."""

    x_label: str
    y_label: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    diagonal: str | None = None

    def x(self, value: float) -> float:
        """Pixel of a value on the horizontal axis."""
        low, high = self.x_range
        return round(_LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        """Pixel of a value on the vertical axis."""
        low, high = self.y_range
        return round(HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 2)


def line_chart(
    title: str, axes: Axes, series: Sequence[Series], points: Sequence[tuple[str, float, float]] = ()
) -> Markup:
    """A chart of lines with bands and named single points, as a figure with its title and legend."""
    parts: list[object] = [_grid(axes)]
    if axes.diagonal:
        corners = (
            axes.x(axes.x_range[0]),
            axes.y(axes.x_range[0]),
            axes.x(axes.x_range[1]),
            axes.y(axes.x_range[1]),
        )
        parts.append(_line(*corners, stroke=GREY, stroke_dasharray="4 3"))
    parts += [_band(axes, s) for s in series]
    for k, s in enumerate(series):
        parts.append(_polyline(axes, s, _DASHES[k % len(_DASHES)]))
    for k, (_, x, y) in enumerate(points):
        parts.append(_marker(axes.x(x), axes.y(y), k, INK))
    labels = [_entry(s.name, s.colour, _DASHES[k % len(_DASHES)]) for k, s in enumerate(series)]
    labels += [_point_entry(name, k) for k, (name, _, _) in enumerate(points)]
    if axes.diagonal:
        labels.append(_entry(axes.diagonal, GREY, "4 3"))
    return figure(title, svg(title, parts), labels)


def figure(title: str, drawing: Markup, legend: Sequence[Markup] = ()) -> Markup:
    """A drawing with its title and legend."""
    return tag(
        "figure",
        tag("figcaption", title),
        drawing,
        tag("ul", *(tag("li", entry) for entry in legend), class_="legend") if legend else None,
    )


def svg(title: str, parts: Sequence[object], height: float = HEIGHT) -> Markup:
    """An SVG element of the common width that screen readers call by `title`."""
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {height:g}",
        role="img",
        aria_label=title,
        xmlns="http://www.w3.org/2000/svg",
    )


def histogram(title: str, x_label: str, counts: Sequence[tuple[str, np.ndarray, str]]) -> Markup:
    """Counts (bins,) over [0, 1] of several classes, drawn as outlined steps on one scale."""
    highest = max((int(values.max(initial=0)) for _, values, _ in counts), default=0) or 1
    axes = Axes(x_label, "studies", y_range=(0, highest * 1.05))
    series = []
    for name, values, colour in counts:
        edges = np.linspace(0, 1, len(values) + 1)
        series.append(Series(name, np.repeat(edges, 2)[1:-1], np.repeat(values, 2).astype(float), colour))
    return line_chart(title, axes, series)


@dataclass(frozen=True)
class ForestRow:
    """A line of a forest plot: value with limits, or a reason in words."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    text: str


def forest(
    title: str, rows: Sequence[ForestRow], x_range: tuple[float, float], reference: float | None = None
) -> Markup:
    """Estimates and intervals one below the other, with their numbers written beside."""
    left, right, step = 70, 146, 24
    height = step * len(rows) + 40
    low, high = x_range

    def x(value: float) -> float:
        clipped = min(max(value, low), high)
        return round(left + (clipped - low) / (high - low) * (WIDTH - left - right), 2)

    parts: list[object] = []
    for tick in _ticks(low, high, 4):
        parts.append(_line(x(tick), 8, x(tick), height - 26, stroke="#dddddd"))
        parts.append(_label(x(tick), height - 10, f"{tick:g}", "middle"))
    if reference is not None:
        parts.append(_line(x(reference), 8, x(reference), height - 26, stroke=GREY, stroke_dasharray="4 3"))
    for k, row in enumerate(rows):
        y = 20 + k * step
        parts.append(_label(left - 8, y + 4, row.name, "end"))
        parts.append(_label(WIDTH - right + 8, y + 4, row.text, "start"))
        if row.low is not None and row.high is not None:
            parts.append(_line(x(row.low), y, x(row.high), y, stroke=BLUE, stroke_width=2))
        if row.value is not None:
            parts.append(tag("rect", x=x(row.value) - 4, y=y - 4, width=8, height=8, fill=BLUE))
    return figure(title, svg(title, parts, height))


def _grid(axes: Axes) -> list[object]:
    parts: list[object] = []
    bottom, left = axes.y(axes.y_range[0]), axes.x(axes.x_range[0])
    top, right = axes.y(axes.y_range[1]), axes.x(axes.x_range[1])
    for tick in _ticks(*axes.x_range):
        parts.append(_line(axes.x(tick), bottom, axes.x(tick), top, stroke="#e6e6e6"))
        parts.append(_label(axes.x(tick), bottom + 16, f"{tick:g}", "middle"))
    for tick in _ticks(*axes.y_range):
        parts.append(_line(left, axes.y(tick), right, axes.y(tick), stroke="#e6e6e6"))
        parts.append(_label(left - 6, axes.y(tick) + 4, f"{tick:g}", "end"))
    parts.append(tag("polyline", points=f"{left},{top} {left},{bottom} {right},{bottom}", fill="none", stroke=INK))
    parts.append(_label((left + right) / 2, HEIGHT - 6, axes.x_label, "middle"))
    middle = (top + bottom) / 2
    parts.append(
        tag("text", axes.y_label, x=11, y=middle, text_anchor="middle", transform=f"rotate(-90 11 {middle:g})")
    )
    return parts


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    raw = (high - low) / (most - 1)
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = np.ceil(low / step - 1e-9)
    return [round(float(k * step), 10) + 0.0 for k in np.arange(first, np.floor(high / step + 1e-9) + 1)]


def _finite(series: Series) -> np.ndarray:
    return np.flatnonzero(np.isfinite(series.x) & np.isfinite(series.y))


def _polyline(axes: Axes, series: Series, dash: str | None) -> Markup:
    seen = [(axes.x(float(series.x[i])), axes.y(float(series.y[i]))) for i in _finite(series)]
    line = tag(
        "polyline",
        points=" ".join(f"{x:g},{y:g}" for x, y in seen),
        fill="none",
        stroke=series.colour,
        stroke_width=2,
        stroke_dasharray=dash,
    )
    dots = [tag("circle", cx=x, cy=y, r=3, fill=series.colour) for x, y in seen] if series.markers else []
    return tag("g", line, *dots)


def _band(axes: Axes, series: Series) -> Markup | None:
    if series.low is None or series.high is None:
        return None
    used = np.flatnonzero(np.isfinite(series.low) & np.isfinite(series.high))
    if not len(used):
        return None
    edge = [(series.x[i], series.high[i]) for i in used] + [(series.x[i], series.low[i]) for i in used[::-1]]
    points = " ".join(f"{axes.x(float(x)):g},{axes.y(float(y)):g}" for x, y in edge)
    return tag("polygon", points=points, fill=series.colour, fill_opacity=0.18, stroke="none")


def _marker(x: float, y: float, kind: int, colour: str) -> Markup:
    if kind % 3 == 0:
        return tag("circle", cx=x, cy=y, r=5, fill="white", stroke=colour, stroke_width=2)
    if kind % 3 == 1:
        return tag("path", d=f"M{x:g} {y - 6:g}l6 11h-12z", fill="white", stroke=colour, stroke_width=2)
    return tag("rect", x=x - 4.5, y=y - 4.5, width=9, height=9, fill="white", stroke=colour, stroke_width=2)


def _entry(name: str, colour: str, dash: str | None) -> Markup:
    key = tag("line", x1=1, y1=6, x2=27, y2=6, stroke=colour, stroke_width=2.5, stroke_dasharray=dash)
    return Markup(tag("svg", key, viewBox="0 0 28 12", class_="key", aria_hidden="true") + tag("span", name))


def _point_entry(name: str, kind: int) -> Markup:
    key = tag("svg", _marker(14, 7, kind, INK), viewBox="0 0 28 14", class_="key", aria_hidden="true")
    return Markup(key + tag("span", name))


def _line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def _label(x: float, y: float, text: str, anchor: str) -> Markup:
    return tag("text", text, x=x, y=y, text_anchor=anchor)
