"""The folder of a search is all there is: what has ended, what has not, and who holds a run."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import torch
from hypothesis import given
from hypothesis import strategies as st
from small_search import small_data, small_space

from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError
from mskscreen.search.cost import costs
from mskscreen.search.halving import development_scores, survives, verdict
from mskscreen.search.plan import (
    EVENTS,
    LOCK,
    PLAN,
    Plan,
    State,
    end,
    ending,
    events,
    holding,
    is_held,
    note,
    spent,
)
from mskscreen.search.space import Run, Space
from mskscreen.search.status import seconds_left, standings
from mskscreen.training.state import Position, save_state

HALVED = (
    'protocol="tiny.toml"\nseeds=[0,1,2,3,4,5]\n[axes]\ntasks=["both","joint"]\nepochs=[9]\n[halving]\nfactor=3'
)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    data = small_data(tmp_path / "data")
    return Plan.make(tmp_path / "search", data, Space.from_toml(small_space(tmp_path, HALVED)))


def _end(plan: Plan, run: Run, state: State) -> None:
    with holding(plan.of(run)):
        end(plan.of(run), state)


def test_a_plan_read_again_is_the_same_plan(plan: Plan) -> None:
    again = Plan.read(plan.folder)
    assert again.space == plan.space
    assert again.digest == plan.digest
    assert [run.name for run in again.runs] == [run.name for run in plan.runs]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value["runs"][0]["protocol"].update(epochs="x" * 9000),
        lambda value: value["runs"][0]["protocol"].update(epochs=[1]),
        lambda value: value["runs"][0].update(protocol=3),
        lambda value: value.update(schema="x" * 9000),
        lambda value: value.update(runs=3),
        lambda value: value.update(halving={"x" * 9000: 1}),
    ],
)
def test_a_plan_that_is_none_is_one_short_sentence(plan: Plan, spoil: Callable) -> None:
    value = json.loads((plan.folder / PLAN).read_text())
    spoil(value)
    (plan.folder / PLAN).write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"plan\.json") as caught:
        Plan.read(plan.folder)
    assert len(str(caught.value)) < 500


def test_lines_that_are_no_events_and_scores_that_are_no_numbers_end_nothing_with_a_traceback(plan: Plan) -> None:
    folder = plan.of(plan.runs[0])
    folder.mkdir(parents=True)
    note(folder, "begin", "here")
    whole = list(events(folder))
    with (folder / EVENTS).open("a") as stream:
        stream.write("\n".join(["3", "[]", "{}", '{"time": 1}', '{"time": "x", "event": "end"}', "[" * 9999]))
    assert list(events(folder)) == whole
    assert spent(folder) == 0
    (folder / "metrics.csv").write_text("epoch,abnormality_auroc\n1,much\n")
    with pytest.raises(DataError, match=r"metrics\.csv: not the history of a run"):
        development_scores(plan, plan.runs[0])


def test_a_folder_takes_a_further_space_but_no_other_data(plan: Plan, tmp_path: Path) -> None:
    (first, *_) = plan.runs
    _end(plan, first, State.DONE)
    larger = Space.from_toml(small_space(tmp_path, HALVED.replace("[9]", "[9, 18]")))
    grown = Plan.make(plan.folder, tmp_path / "data" / "MURA-v1.1", larger)
    assert len(grown.runs) == 24
    assert [run.name for run in grown.todo()] == [run.name for run in grown.runs if run.name != first.name]
    other = small_data(tmp_path / "other")
    (other / "valid_image_paths.csv").write_text("")
    with pytest.raises(DataError, match="other data"):
        Plan.make(plan.folder, other, larger)


def test_the_evaluation_set_is_labelled_in_the_column_that_the_runs_learn(plan: Plan) -> None:
    manifest = Manifest.read(plan.data)
    held_out = [split == "valid" for split in manifest["split"]]
    hidden = [None if out else label for out, label in zip(held_out, manifest["label"], strict=True)]
    manifest.replace({**manifest.columns, "label": hidden, "label_x": manifest["label"]}).write(plan.data)
    runs = tuple(replace(run, protocol=replace(run.protocol, labels="label_x")) for run in plan.runs)
    assert len(replace(plan, space=Space(runs)).held_out()) == sum(held_out)
    assert len(replace(plan, space=Space((plan.runs[0], *runs))).held_out()) == 0


def _again(plan: Plan, text: str, folder: Path) -> Plan:
    data = folder / "data" / "MURA-v1.1"
    return Plan.make(plan.folder, data, Space.from_toml(small_space(folder / str(abs(hash(text))), text)))


def test_a_further_space_takes_no_run_from_those_who_train_it(plan: Plan, tmp_path: Path) -> None:
    grown = _again(plan, 'protocol="tiny.toml"\nseeds=[0]\n[axes]\nloss=["focal"]\nepochs=[9]', tmp_path)
    found = {run.name: run for run in Plan.read(plan.folder).runs}
    assert set(found) == {run.name for run in grown.runs}
    assert {run.name for run in plan.runs} < set(found)
    for run in plan.runs:
        assert found[run.name].levels == {"loss": "cross-entropy", "epochs": "9", "tasks": run.protocol.tasks}
    (new,) = (run for run in grown.runs if run.protocol.loss == "focal")
    assert new.levels == {"loss": "focal", "epochs": "9", "tasks": "both"}
    with pytest.raises(DataError, match="has no run 'nothing'"):
        grown.run("nothing")


def test_cells_of_two_spaces_that_differ_are_told_apart_by_the_keys_in_which_they_do(
    plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "rates").mkdir()
    faster = small_space(tmp_path / "rates", HALVED, 'architecture="timm:test_resnet"\ninit="random"\nrate=1e-2')
    grown = Plan.make(plan.folder, tmp_path / "data" / "MURA-v1.1", Space.from_toml(faster))
    by_cell: dict[str, set[str]] = {}
    for run in grown.runs:
        by_cell.setdefault(run.cell, set()).add(run.protocol.replace(seed=0).digest)
        assert run.levels["rate"] == str(run.protocol.rate)
    assert len(by_cell) == 4
    assert all(len(protocols) == 1 for protocols in by_cell.values())


def test_a_further_fold_repeats_the_cells_of_a_search(plan: Plan, tmp_path: Path) -> None:
    other = HALVED.replace('tasks=["both","joint"]', 'tasks=["both","joint"]\nfold=[1]')
    grown = _again(plan, other, tmp_path)
    assert grown.space.cells == plan.space.cells
    assert {run.key for run in grown.runs} == {run.key for run in plan.runs}
    assert len(grown.runs) == 2 * len(plan.runs)


def test_cells_of_two_spaces_whose_levels_read_alike_when_joined_are_told_apart(tmp_path: Path) -> None:
    axes = 'protocol="tiny.toml"\n[axes]\na=[{name="x",rate=1e-3}]\nb=[{name="y z",batch=8}]'
    other = axes.replace('"x",rate=1e-3', '"x y",rate=1e-4').replace('"y z"', '"z"')
    spaces = [Space.from_toml(small_space(tmp_path / str(k), text)) for k, text in enumerate((axes, other))]
    assert spaces[0].cells == spaces[1].cells
    joined = spaces[0].joined(spaces[1])
    assert len(joined.cells) == len({run.key for run in joined.runs}) == 2


def test_spaces_that_join_at_one_time_all_join(plan: Plan, tmp_path: Path) -> None:
    def joined(seed: int) -> None:
        _again(plan, f'protocol="tiny.toml"\nseeds=[{seed}]', tmp_path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(joined, range(100, 104)))
    seeds = {run.protocol.seed for run in Plan.read(plan.folder).runs}
    assert seeds == {0, 1, 2, 3, 4, 5, 100, 101, 102, 103}


def test_a_run_ends_once(plan: Plan) -> None:
    folder = plan.of(plan.runs[0])
    assert ending(folder) is None
    with holding(folder):
        first = end(folder, State.FAILED, "no disk left")
        assert end(folder, State.DONE) == first == ending(folder)
    assert sum(json.loads(line)["event"] == "end" for line in (folder / EVENTS).read_text().splitlines()) == 1


def test_failed_runs_are_begun_again_only_when_asked(plan: Plan) -> None:
    done, failed, stopped = plan.runs[:3]
    for run, state in ((done, State.DONE), (failed, State.FAILED), (stopped, State.STOPPED)):
        _end(plan, run, state)
    assert {run.name for run in plan.runs} - {run.name for run in plan.todo()} == {
        run.name for run in (done, failed, stopped)
    }
    assert failed.name in {run.name for run in plan.todo(failed=True)}
    assert len(plan.todo()) == len(plan.runs) - 2


def test_a_held_run_is_refused_to_others_until_its_holder_dies(plan: Plan) -> None:
    folder = plan.of(plan.runs[0])
    code = f"""
import sys
from pathlib import Path
from mskscreen.search.plan import holding
with holding(Path({str(folder)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match="another process"), holding(folder, patience=0):
            pass
        assert is_held(folder)
        assert standings(plan, costs(plan, Manifest.read(plan.data)))[0].state == "running"
        process.kill()
        with holding(folder, patience=30):
            pass
    assert not is_held(folder)


def test_a_look_at_the_lock_of_a_run_writes_nothing_and_keeps_no_one_from_it(plan: Plan) -> None:
    folder = plan.of(plan.runs[0])
    assert not is_held(folder)
    assert not folder.exists()
    _end(plan, plan.runs[0], State.DONE)
    before = (folder / LOCK).stat().st_mtime_ns
    with (folder / LOCK).open("rb") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        assert not is_held(folder), "two may look at a time"
        Timer(0.3, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        assert (folder / LOCK).stat().st_mtime_ns == before
        with holding(folder):
            assert is_held(folder)


def test_time_is_that_between_beginnings_and_what_followed_them(plan: Plan) -> None:
    folder = plan.of(plan.runs[0])
    folder.mkdir()
    lines = [("begin", 0), ("save", 10), ("begin", 20), ("begin", 25), ("end", 31)]
    (folder / EVENTS).write_text(
        "".join(json.dumps({"time": f"2026-01-01T00:00:{s:02d}+00:00", "event": e}) + "\n" for e, s in lines)
    )
    assert spent(folder) == 16
    with (folder / EVENTS).open("a") as stream:
        stream.write('{"time": "2026-01-0')
    assert spent(folder) == 16
    note(folder, "begin", "here")


def test_a_run_that_is_held_has_taken_the_time_since_it_was_begun(plan: Plan) -> None:
    folder = plan.of(plan.runs[0])
    folder.mkdir()
    begun = datetime.now(UTC) - timedelta(seconds=100)
    line = json.dumps({"time": begun.isoformat(), "event": "begin", "where": "here"}) + "\n"
    (folder / EVENTS).write_text(line)
    assert spent(folder) == 0
    assert spent(folder, held=True) == pytest.approx(100, abs=30)
    with holding(folder):
        first, other = standings(plan, costs(plan, Manifest.read(plan.data)))[:2]
    assert first.seconds == pytest.approx(100, abs=30)
    assert other.seconds == 0


def test_what_is_left_goes_by_the_pace_of_the_runs_that_are_under_way(plan: Plan) -> None:
    manifest = Manifest.read(plan.data)
    slow, fast = plan.runs[:2]
    every = costs(plan, manifest)[slow.name].images
    for run, seconds in ((slow, 90.0), (fast, 9.0)):
        plan.of(run).mkdir()
        position = Position(run.protocol.digest, plan.digest, epoch=1, seconds=seconds, images=every // 9)
        weight = torch.nn.Linear(1, 1)
        save_state(plan.of(run), position, {"network": weight}, torch.optim.SGD(weight.parameters()))
        _scored(plan, plan.runs.index(run), 0.5)
    found = standings(plan, costs(plan, manifest))
    assert found[0].seconds_left == pytest.approx(90 * 8, rel=0.01)
    assert found[1].seconds_left == pytest.approx(9 * 8, rel=0.01)
    assert 9 * 9 < found[2].seconds_left < 90 * 9, "between both where it has no pace of its own"
    assert seconds_left(found) == pytest.approx(sum(standing.seconds_left for standing in found))


def test_a_cell_that_cannot_begin_leaves_the_costs_of_the_others(plan: Plan, tmp_path: Path) -> None:
    text = 'protocol="tiny.toml"\n[axes]\narchitecture=["inception_v3","timm:test_resnet"]\nfold=[0,7]'
    grown = _again(plan, text, tmp_path)
    found = costs(grown, Manifest.read(plan.data))
    assert len(standings(grown, found)) == len(grown.runs)
    for run in grown.runs:
        small, absent = run.protocol.architecture == "inception_v3", run.protocol.fold == 7
        said = found[run.name].problem
        assert ("cannot take an input of 32 pixels" in said) == small
        assert ("fold" in said) == (absent and not small)
        assert (found[run.name].seconds > 0) == (not said)


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=40), factor=st.integers(2, 5))
def test_the_best_always_survives_and_no_more_than_the_share_do(values: list[float], factor: int) -> None:
    kept = [value for k, value in enumerate(values) if survives(value, values[:k] + values[k + 1 :], factor)]
    assert max(values) in kept
    distinct = len(set(values)) == len(values)
    assert not distinct or len(kept) == max(1, len(values) // factor)


def _scored(plan: Plan, number: int, *scores: float) -> None:
    run = plan.runs[number]
    name = "joint_auroc" if run.protocol.tasks == "joint" else "abnormality_auroc"
    plan.of(run).mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{k},{score}\n" for k, score in enumerate(scores, 1))
    (plan.of(run) / "metrics.csv").write_text(f"epoch,{name}\n{rows}")


def test_a_run_behind_at_a_rung_is_stopped_and_says_why(plan: Plan) -> None:
    both = [k for k, run in enumerate(plan.runs) if run.protocol.tasks == "both"]
    joint = next(k for k, run in enumerate(plan.runs) if run.protocol.tasks == "joint")
    for k, scores in zip(both[:4], ((0.6,), (0.7,), (0.9,), (0.8, 0.7, 0.6)), strict=True):
        _scored(plan, k, *scores)
    _scored(plan, both[4], 0.5, 0.95, 0.5)
    runs = plan.runs
    assert verdict(plan, runs[both[2]], 1) == ""
    assert verdict(plan, runs[both[3]], 1) == "at epoch 1 1 of 5 runs were better than its 0.800"
    assert verdict(plan, runs[both[3]], 2) == ""
    assert verdict(plan, runs[both[4]], 1)
    assert verdict(plan, runs[both[4]], 3) == "", "its best epoch so far counts"
    assert verdict(plan, runs[both[3]], 3)
    _scored(plan, joint, 0.1)
    assert verdict(plan, runs[joint], 1) == "", "joint types are not compared with abnormality"
    _scored(plan, both[5], float("nan"))
    assert verdict(plan, runs[both[5]], 1)


@pytest.mark.parametrize("other", [{"fold": 1}, {"labels": "label_x"}])
def test_runs_are_halved_among_those_of_one_fold_and_label_column(plan: Plan, other: dict) -> None:
    behind, *ahead = (k for k, run in enumerate(plan.runs) if run.protocol.tasks == "both")
    moved = tuple(
        run if k == behind else replace(run, protocol=run.protocol.replace(**other))
        for k, run in enumerate(plan.runs)
    )
    apart = replace(plan, space=replace(plan.space, runs=moved))
    for searched in (plan, apart):
        _scored(searched, behind, 0.6)
        for k in ahead:
            _scored(searched, k, 0.9)
    assert verdict(plan, plan.runs[behind], 1)
    assert verdict(apart, apart.runs[behind], 1) == ""


def test_without_halving_nothing_is_stopped(plan: Plan, tmp_path: Path) -> None:
    space = Space.from_toml(small_space(tmp_path, HALVED.partition("[halving]")[0]))
    plain = Plan(plan.folder, plan.digest, space)
    for k in range(4):
        _scored(plain, k, 0.9 - 0.1 * k)
    assert {verdict(plain, run, 1) for run in plain.runs[:4]} == {""}
