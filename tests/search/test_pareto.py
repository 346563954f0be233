"""The front of a search's cells is what nothing dominates, and its chart can be read."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mskscreen.search.pareto import Point, front, pareto_chart

points = st.lists(
    st.builds(Point, st.just(1), st.integers(1, 6).map(float), st.integers(0, 6).map(lambda k: k / 6)),
    min_size=1,
    max_size=20,
)


@given(points)
def test_the_front_is_what_nothing_dominates(given_points: list[Point]) -> None:
    def dominated(point: Point) -> bool:
        return any(
            other.latency <= point.latency
            and other.auroc >= point.auroc
            and (other.latency, other.auroc) != (point.latency, point.auroc)
            for other in given_points
        )

    best = front(given_points)
    assert {(p.latency, p.auroc) for p in best} == {(p.latency, p.auroc) for p in given_points if not dominated(p)}
    assert [p.latency for p in best] == sorted(p.latency for p in best)


def test_every_cell_is_drawn_with_its_number() -> None:
    drawing, figure = pareto_chart([Point(1, 10.0, 0.8), Point(2, 30.0, 0.9), Point(3, 40.0, 0.85)])
    assert drawing.count("<circle") == 3
    assert [f">{k}</text>" in drawing for k in (1, 2, 3)] == [True] * 3
    assert drawing in figure
    assert "<svg" in pareto_chart([Point(1, 10.0, 0.8)])[0]


def test_the_title_of_an_axis_stays_clear_of_its_ticks() -> None:
    drawing, _ = pareto_chart([Point(1, 10.0, 0.8), Point(2, 30.0, 0.9)])
    title = float(re.search(r'x="([\d.]+)" [^>]*rotate', drawing)[1])
    ticks = re.findall(r'x="([\d.]+)" [^>]*"end"[^>]*>([\d.]+)<', drawing)
    assert len(ticks) == 5
    # Digits of wide fonts are 0.64 of the size, and letters such as p hang down by a quarter.
    assert all(float(x) - 0.64 * 12 * len(text) > title + 12 / 4 + 4 for x, text in ticks)
