"""What is read from a search, on results whose truth is known."""

import dataclasses
import json
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.compare import bootstrap_p, holm
from mskscreen.evaluation.labels import Labels, read_labels
from mskscreen.evaluation.table import Table
from mskscreen.networks.complexity import Complexity
from mskscreen.predictions import Prediction, Predictions
from mskscreen.search.effects import FIGURES, cells_p, effects, over_cells, resample, rivals
from mskscreen.search.ensemble import greedy, select
from mskscreen.search.latency import Latency, key
from mskscreen.search.plan import DEVELOPMENT, ENDED, EVALUATION, Plan
from mskscreen.search.report import write_report
from mskscreen.search.results import Findings, Result, figures, gather, ranked_cells
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
    architecture: str,
    init: str,
    seed: int,
    strength: float,
    tasks: str = "both",
    score: float = 0.8,
    **keys: object,
) -> Result:
    protocol = Protocol(architecture=architecture, init=init, tasks=tasks, seed=seed).replace(**keys)
    run = Run({"architecture": architecture, "init": init, "tasks": tasks}, protocol)
    cases = _cases(strength, zlib.crc32(repr((architecture, init, seed, tasks)).encode()))
    return Result(run, score, cases, figures(cases, tasks), Complexity(1_000_000, 1.0), 3600.0)


def _findings(results: Sequence[Result], others: Sequence[tuple[Run, str, str]] = ()) -> Findings:
    runs = (*(result.run for result in results), *(run for run, *_ in others))
    return Findings(ranked_cells(results, runs), tuple(others), "evaluation set", runs)


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
    assert effect_table(found, searched).rows


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
    for *_, difference, patients, by_patients, cells, by_cells, _ in axes:
        assert re.fullmatch(p, by_patients)
        assert re.fullmatch(p, by_cells)
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


def test_a_report_without_latencies_keeps_no_chart_of_an_earlier_one(searched: Findings, tmp_path: Path) -> None:
    plan = Plan(tmp_path, "", Space(tuple(result.run for result in searched.results)))
    timed = {key(result.run.protocol): Latency(9.0, 8.0, 10.0, "e", "m") for result in searched.results}
    for latencies, drawn in ((timed, True), ({}, False)):
        write_report(plan, searched, latencies, tmp_path, resamples=5)
        assert (tmp_path / "pareto.svg").exists() == drawn
        assert ("pareto.svg" in (tmp_path / "report.md").read_text()) == drawn


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


def test_a_level_is_compared_with_the_first_of_the_space_whoever_is_ahead() -> None:
    for ahead in (0, 1):
        runs = [
            _result("resnet18", init, 0, 1.0 + (k == ahead), score=0.9 if k == ahead else 0.6)
            for k, init in enumerate(("random", "imagenet"))
        ]
        findings = _findings(runs)
        found = effects(findings, resample(findings, resamples=20))
        assert {(effect.level, effect.against) for effect in found} == {("imagenet", "random")}


def test_the_p_values_of_effects_are_corrected_for_the_rows_looked_at() -> None:
    first, *rest = (_result(name, "random", 0, 1.0 + 0.15 * k) for k, name in enumerate(ARCHITECTURES))
    findings = _findings([first, *rest])
    draws = resample(findings, resamples=200)
    found = effects(findings, draws)

    def raw(result: Result, figure: str) -> float:
        values = (draws.estimate, draws.replicates)
        difference, replicates = (v[result.run.name][figure] - v[first.run.name][figure] for v in values)
        return bootstrap_p(float(difference), replicates)

    expected = holm([raw(result, figure) for result in rest for figure in FIGURES])
    assert [effect.patients_p for effect in found] == pytest.approx(expected)
    assert all(effect.cells_p is None for effect in found), "one pair says nothing of other cells"
    assert f"{len(found)} rows were looked at" in effect_table(found, findings).note


def test_what_several_keys_changed_together_is_no_effect_of_one_of_them() -> None:
    runs = [_result("resnet18", "random", 0, 1.0), _result("vgg16_bn", "random", 0, 1.0, epochs=1, input_size=32)]
    findings = _findings(runs)
    table = effect_table(effects(findings, resample(findings, resamples=20)), findings)
    assert {row[0] for row in table.rows} == {"architecture (architecture, input_size, epochs)"}
    assert "of none alone" in table.note
    plain = _findings([runs[0], _result("vgg16_bn", "random", 0, 1.0)])
    table = effect_table(effects(plain, resample(plain, resamples=20)), plain)
    assert {row[0] for row in table.rows} == {"architecture"}
    assert "of none alone" not in table.note


def test_what_was_stopped_is_counted_and_its_cell_stands_behind_the_complete_ones(tmp_path: Path) -> None:
    whole = [_result("resnet18", "random", seed, 1.0, score=0.7) for seed in range(3)]
    lucky = _result("densenet121", "random", 0, 1.0, score=0.9)
    stopped = [(_result("densenet121", "random", seed, 1.0).run, "stopped", "behind") for seed in (1, 2)]
    findings = _findings([lucky, *whole], stopped)
    assert [cell.name for cell in findings.ranked()] == [whole[0].run.cell, lucky.run.cell]
    board = leaderboard(findings, {})
    assert [row[board.header.index("Runs")] for row in board.rows] == ["3", "1 of 3"]
    assert "behind the others" in board.note
    note = effect_table(effects(findings, resample(findings, resamples=20)), findings).note
    assert "of 6 runs 2 stopped are in none" in note
    plan = Plan(tmp_path, "", Space(findings.runs))
    write_report(plan, findings, {}, tmp_path, resamples=20)
    assert "1 of 2 cells are finished (4 of 6 runs)" in (tmp_path / "report.md").read_text()
    complete = _findings(whole)
    assert "behind the others" not in leaderboard(complete, {}).note
    assert "are in none" not in effect_table([], complete).note


def test_folds_are_averaged_in_a_cell_and_paired_with_themselves() -> None:
    def result(architecture: str, fold: int, score: float) -> Result:
        found = _result(architecture, "random", 0, 1.0 + fold, score=score, fold=fold)
        return dataclasses.replace(found, run=Run({**found.run.levels, "fold": str(fold)}, found.run.protocol))

    easy, hard = (result("resnet18", fold, score) for fold, score in ((1, 0.9), (0, 0.7)))
    (cell,) = _findings([hard, easy]).cells
    assert cell.score == pytest.approx(0.8)
    assert cell.best == hard, "scores of two folds are not compared"
    findings = _findings([hard, easy, result("densenet121", 0, 0.6)])
    found = effects(findings, resample(findings, resamples=20))
    assert {effect.axis for effect in found} == {"architecture"}
    expected = findings.cells[1].results[0].figures["abnormality_auroc"] - hard.figures["abnormality_auroc"]
    assert next(e for e in found if e.figure == "abnormality_auroc").difference.value == pytest.approx(expected)


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
    for draw in draws[:50]:
        interval = over_cells(draw)
        assert (cells_p(draw) < 0.05) == (not interval.low <= 0 <= interval.high)
    assert (cells_p(np.zeros(3)), cells_p(np.ones(3)), cells_p(np.ones(1))) == (1, 0, None)


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


def _two_runs(tmp_path: Path, key: str, values: Sequence[object]) -> tuple[Plan, list[Result]]:
    """A search whose two finished runs differ in one key, on 60 studies; six of the labels in label_x are wrong.

    The mean of both models ranks as `label` says; each said in training that it had 0.9.
    """
    names = [f"{k}.png" for k in range(60)]
    truth = [k % 2 for k in range(60)]
    rows = [
        {"image": name, "study": name, "patient": name, "label": y} for name, y in zip(names, truth, strict=True)
    ]
    manifest = Manifest.from_rows(tmp_path, rows, "csv")
    changed = [1 - y if k < 6 else y for k, y in enumerate(truth)]
    results = []
    for seed, value in enumerate(values):
        result = _result("resnet18", "random", seed, 1.0, **{key: value})
        results.append(dataclasses.replace(result, run=Run({key: str(value)}, result.run.protocol)))
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
        done = {"metrics": {"abnormality_auroc": 0.9}, "cost": {"seconds": 1.0, "precision": "bf16"}}
        (plan.of(result.run) / "done.json").write_text(json.dumps(done))
        (plan.of(result.run) / ENDED).write_text('{"state": "done", "reason": "", "seconds": 1.0}')
        cases = join(Table.of(table, "toy"), read_labels(plan.data)).cases()
        results[k] = dataclasses.replace(result, cases=cases)
    return plan, results


def test_an_ensemble_of_runs_that_learned_several_label_sets_is_judged_by_one(tmp_path: Path) -> None:
    plan, results = _two_runs(tmp_path, "labels", ("label_x", "label"))
    chosen = select(plan, _findings(results), resamples=20)
    assert chosen.together["auroc"].value == 1


def test_runs_that_learned_several_label_sets_are_ranked_by_one(tmp_path: Path) -> None:
    plan, _ = _two_runs(tmp_path, "labels", ("label_x", "label"))
    scores = {result.run.protocol.labels: result for result in gather(plan).results}
    assert scores["label"].score == 0.9, "as training said"
    assert scores["label_x"].score == scores["label_x"].figures["abnormality_auroc"]


def test_runs_of_several_folds_are_not_compared_on_the_development_fold(tmp_path: Path) -> None:
    plan, results = _two_runs(tmp_path, "fold", (0, 1))
    with pytest.raises(DataError, match="folds 0, 1; search one"):
        gather(plan)
    with pytest.raises(DataError, match="models of an ensemble are chosen by one development fold"):
        select(plan, _findings(results), resamples=20)
