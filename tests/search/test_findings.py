"""What is read from a search, on results whose truth is known."""

import dataclasses
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.manifest import Manifest
from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.compare import holm
from mskscreen.evaluation.labels import Labels, read_labels
from mskscreen.evaluation.table import Table
from mskscreen.networks.complexity import Complexity
from mskscreen.predictions import Prediction, Predictions
from mskscreen.search.effects import effects, over_cells, resample, rivals
from mskscreen.search.ensemble import greedy, select
from mskscreen.search.pareto import Point, front, pareto_chart
from mskscreen.search.plan import DEVELOPMENT, EVALUATION, Plan
from mskscreen.search.report import write_report
from mskscreen.search.results import Cell, Findings, Result, figures
from mskscreen.search.space import Run, Space
from mskscreen.search.tables import by_joint, effect_table, leaderboard, rival_table
from mskscreen.training.protocol import Protocol

STUDIES = 400
TRUTH = np.random.default_rng(1).random(STUDIES) < 0.4
JOINTS = np.arange(STUDIES) % 7
ARCHITECTURES = ("resnet18", "densenet121", "vgg16_bn")


def _cases(strength: float, seed: int, joint_strength: float = 2.0) -> Cases:
    """Studies scored by a model that separates the classes by so many standard deviations."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(rng.normal(size=STUDIES) + strength * TRUTH - 1)))
    scores = rng.normal(size=(STUDIES, 7)) + joint_strength * np.eye(7)[JOINTS]
    p_joint = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    names = [f"s{k}" for k in range(STUDIES)]
    nothing = np.full((STUDIES, 2), np.nan)
    table = Table(names, names, [None] * STUDIES, p, p_joint, nothing, np.full((STUDIES, 7), np.nan), {})
    labels = Labels(names, names, [f"p{k // 2}" for k in range(STUDIES)], TRUTH.astype(float), JOINTS)
    return join(table, labels).cases()


def _result(
    architecture: str, init: str, seed: int, strength: float, tasks: str = "both", score: float = 0.8
) -> Result:
    protocol = Protocol(architecture=architecture, init=init, tasks=tasks, seed=seed)
    run = Run({"architecture": architecture, "init": init, "tasks": tasks}, protocol)
    cases = _cases(strength, zlib.crc32(repr((architecture, init, seed, tasks)).encode()))
    return Result(run, score, cases, figures(cases, tasks), Complexity(1_000_000, 1.0), 3600.0)


def _findings(results: Sequence[Result]) -> Findings:
    by_cell: dict[str, list[Result]] = {}
    for result in results:
        by_cell.setdefault(result.run.cell, []).append(result)
    cells = sorted((Cell(tuple(r)) for r in by_cell.values()), key=lambda cell: (cell.task, -cell.score))
    return Findings(tuple(cells), (), "evaluation set", max(len(cell.results) for cell in cells))


@pytest.fixture(scope="module")
def searched() -> Findings:
    """ImageNet helps by a standard deviation, whatever the architecture, which does not matter; two seeds."""
    return _findings(
        [
            _result(name, init, seed, 2.0 if init == "imagenet" else 1.0, score=0.9 if init == "imagenet" else 0.7)
            for name in ARCHITECTURES
            for init in ("random", "imagenet")
            for seed in (0, 1)
        ]
    )


def test_figures_are_those_of_the_definition() -> None:
    cases = _cases(1.5, 3)
    found = figures(cases)
    wins = [(p > n) + (p == n) / 2 for p in cases.p[cases.labels] for n in cases.p[~cases.labels]]
    assert found["abnormality_auroc"] == pytest.approx(np.mean(wins))
    assert found["abnormality_accuracy"] == pytest.approx(np.mean((cases.p >= 0.5) == cases.labels))
    assert found["joint_accuracy"] == pytest.approx(np.mean(cases.p_joint.argmax(1) == cases.joint))
    hand = cases.select(np.flatnonzero(cases.joint == JOINT_LABELS.index("hand")))
    assert found["abnormality_auroc_hand"] == pytest.approx(figures(hand)["abnormality_auroc"])
    each = [found[f"abnormality_auroc_{joint}"] for joint in JOINT_LABELS]
    assert found["abnormality_auroc_mean"] == pytest.approx(np.mean(each))
    assert not any(name.startswith("joint") for name in figures(cases, "abnormality"))
    assert not any(name.startswith("abnormality") for name in figures(cases, "joint"))
    few = figures(cases.select(np.arange(7 * 19)))
    assert "abnormality_auroc" in few
    assert "abnormality_auroc_hand" not in few


def test_a_real_effect_is_found_and_none_where_there_is_none(searched: Findings) -> None:
    found = effects(searched, resample(searched, resamples=300))
    imagenet = next(e for e in found if e.axis == "init" and e.figure == "abnormality_auroc")
    assert (imagenet.pairs, {imagenet.level, imagenet.against}) == (3, {"imagenet", "random"})
    sign = 1 if imagenet.level == "imagenet" else -1
    truth = 0.5 * (math.erf(2 / 2) - math.erf(1 / 2))
    assert sign * imagenet.difference.value == pytest.approx(truth, abs=0.05)
    for interval in (imagenet.difference.interval, imagenet.cells):
        assert min(sign * interval.low, sign * interval.high) > 0
    assert imagenet.low <= imagenet.difference.value <= imagenet.high
    architectures = [e for e in found if e.axis == "architecture" and e.figure == "abnormality_auroc"]
    assert len(architectures) == 2
    assert all(e.cells.low < 0 < e.cells.high for e in architectures)
    assert effect_table(found, "evaluation set").rows


def test_the_written_report_has_the_intervals_of_the_effects_and_the_paired_tests(
    searched: Findings, tmp_path: Path
) -> None:
    plan = Plan(tmp_path, "", Space(tuple(result.run for result in searched.results)))
    write_report(plan, searched, {}, tmp_path, resamples=200)
    text, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    interval, p = r"[+-]\d\.\d{3} to [+-]\d\.\d{3}", r"(< 0\.0001|[01]\.\d{4})"

    axes = _rows(text, "Effect of each axis")
    assert {(axis, figure) for axis, _, _, figure, *_ in axes} == {
        (axis, figure) for axis in ("init", "architecture") for figure in ("Abnormality AUROC", "Joint AUROC")
    }
    for *_, difference, patients, cells, _ in axes:
        for found in (patients, cells):
            assert re.fullmatch(interval, found)
            low, high = map(float, found.split(" to "))
            assert low <= float(difference) <= high
            assert f">{found}<" in page

    tests = _rows(text, "The best against the rest")
    assert {row[0] for row in tests} == {cell.name for cell in searched.cells[1:]}
    for _, auroc, auroc_interval, *delong, accuracy, accuracy_interval, test, corrected in tests:
        for value, found in ((auroc, auroc_interval), (accuracy, accuracy_interval)):
            low, high = map(float, found.split(" to "))
            assert low <= float(value) <= high
            assert f">{found}<" in page
        for raw, holms in (delong, (test, corrected)):
            assert re.fullmatch(p, raw)
            assert re.fullmatch(p, holms)
            assert float(raw.lstrip("< ")) <= float(holms.lstrip("< "))
    assert sum("< 0.0001" in row for row in tests) >= 3, "random weights are far behind"


def _rows(text: str, title: str) -> list[list[str]]:
    """The rows of the table below a title."""
    lines = text.partition(f"## {title}\n\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_effects_are_of_matched_pairs_only() -> None:
    runs = [_result("resnet18", "random", 0, 1.0), _result("densenet121", "imagenet", 0, 2.0)]
    findings = _findings(runs)
    assert effects(findings, resample(findings, resamples=50)) == []
    third = _result("resnet18", "random", 1, 1.0, tasks="abnormality")
    findings = _findings([*runs, third])
    assert effects(findings, resample(findings, resamples=50)) == [], "another seed is no pair"


def test_the_best_is_named_by_development_and_tested_on_evaluation() -> None:
    lucky = _result("resnet18", "random", 0, 1.0, score=0.95)
    better = _result("densenet121", "random", 0, 2.0, score=0.85)
    same = _result("vgg16_bn", "random", 0, 1.0, score=0.80)
    findings = _findings([same, better, lucky])
    best, found = rivals(findings, resample(findings, resamples=300))
    assert best.name == lucky.run.cell
    assert [rival.cell for rival in found] == [better.run.cell, same.run.cell]
    assert found[0].auroc.value < 0
    assert found[0].auroc.interval.high < 0
    assert found[0].delong_holm < 0.05
    assert found[1].auroc.interval.low < 0 < found[1].auroc.interval.high
    assert [r.delong_holm for r in found] == holm([r.delong for r in found])
    assert [r.mcnemar_holm for r in found] == holm([r.mcnemar for r in found])
    assert rival_table(best, found, findings.on).rows[0][0] == better.run.cell


def test_the_leaderboard_gives_mean_and_spread_over_the_seeds(searched: Findings) -> None:
    board = leaderboard(searched, {})
    assert len(board.rows) == 6
    assert [row[3] for row in board.rows] == ["0.900"] * 3 + ["0.700"] * 3
    values = [r.figures["abnormality_auroc"] for r in searched.cells[0].results]
    expected = f"{np.mean(values):.3f} +- {np.std(values, ddof=1):.3f}"
    assert board.rows[0][board.header.index("Abnormality AUROC")] == expected
    assert board.rows[0][board.header.index("Training, h")] == "2.00"
    joints = by_joint(searched, "joint_auroc")
    assert joints.header[2:] == (*JOINT_LABELS, "average")
    single = _findings([_result("resnet18", "random", 0, 1.0)])
    assert "+-" not in leaderboard(single, {}).rows[0][6]


def test_the_interval_over_cells_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.1, 1, (2000, 5))
    covered = [over_cells(draw).low <= 0.1 <= over_cells(draw).high for draw in draws]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert over_cells(np.array([0.3])) is None


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


def test_greedy_selection_takes_what_complements_and_stops_when_nothing_helps() -> None:
    one, two = _cases(1.2, 1), _cases(1.2, 2)
    noise = _cases(0.0, 3)
    order, scores = greedy({"noise": noise, "one": one, "two": two}, most=6)
    assert set(order[:2]) == {"one", "two"}
    assert "noise" not in order
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    alone = figures(one)["abnormality_auroc"], figures(two)["abnormality_auroc"]
    assert scores[0] == pytest.approx(max(alone))
    assert scores[1] > scores[0] + 0.01
    assert greedy({"one": one, "copy": one}, most=5)[0] == ["one"]
    assert len(greedy({"one": one, "two": two}, most=1)[0]) == 1


def test_an_ensemble_of_runs_that_learned_several_label_sets_is_judged_by_one(tmp_path: Path) -> None:
    names = [f"{k}.png" for k in range(60)]
    truth = [k % 2 for k in range(60)]
    rows = [
        {"image": name, "study": name, "patient": name, "label": y} for name, y in zip(names, truth, strict=True)
    ]
    manifest = Manifest.from_rows(tmp_path, rows, "csv")
    changed = [1 - y if k < 6 else y for k, y in enumerate(truth)]
    results = []
    for seed, column in enumerate(("label_x", "label")):
        result = _result("resnet18", "random", seed, 1.0)
        protocol = dataclasses.replace(result.run.protocol, labels=column)
        results.append(dataclasses.replace(result, run=Run({"labels": column}, protocol)))
    plan = Plan(tmp_path, "", Space(tuple(result.run for result in results)))
    manifest.replace({**manifest.columns, "label_x": changed}).write(plan.data)
    p = np.random.default_rng(0).random((2, 60)) * 0.2 + np.array(truth) * 0.3 + 0.2
    for k, result in enumerate(results):
        table = Predictions(
            tuple(
                Prediction(name, name, "hand", (1.0,) + (0.0,) * 6, float(value))
                for name, value in zip(names, p[k], strict=True)
            ),
            {"name": "toy"},
        )
        for name in (DEVELOPMENT, EVALUATION):
            plan.of(result.run).mkdir(parents=True, exist_ok=True)
            table.write(plan.of(result.run) / name)
        cases = join(Table.of(table, "toy"), read_labels(plan.data)).cases()
        results[k] = dataclasses.replace(result, cases=cases)
    chosen = select(plan, _findings(results), resamples=20)
    assert chosen.together["auroc"].value == 1
