"""A small search from its space to its report, with the commands that a user types."""

import csv
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from small_search import small_data, small_space

from mskscreen.cli import main
from mskscreen.errors import DataError
from mskscreen.inference import Screener
from mskscreen.inference.engines import cores
from mskscreen.inference.ensemble import Ensemble
from mskscreen.predictions import Predictions
from mskscreen.search import local, runner
from mskscreen.search.ensemble import Chosen, command
from mskscreen.search.local import device_of, run_here, threads_of
from mskscreen.search.plan import EVALUATION, MODEL, Plan, State, ending, events
from mskscreen.search.runner import FULL, conduct
from mskscreen.search.space import Space
from mskscreen.training.state import Position, save_state

HALVING = "[halving]\nfactor = 2\nfirst = 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """A search of which all runs but two have ended: four of small networks, two of one that does not exist."""
    small_data(folder / "data")
    plan = Plan.make(folder / "out", folder / "data" / "MURA-v1.1", Space.from_toml(small_space(folder)))
    for run in plan.runs[:1] + plan.runs[2:5]:
        conduct(plan, run)
    return plan


def _main(*arguments: object, code: int = 0) -> None:
    before = sys.argv
    sys.argv = ["mskscreen", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert (caught.value.code or 0) == code
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def searched(plan: Plan, folder: Path) -> Plan:
    """The same after `search` has conducted the rest, each run in a process of its own."""
    _main("search", folder / "data" / "MURA-v1.1", "--space", folder / "space.toml", "--out", plan.folder, code=3)
    return plan


def test_every_run_ends_once_and_failures_stop_nothing(searched: Plan) -> None:
    states = [ending(searched.of(run)).state for run in searched.runs]
    assert states == [State.DONE, State.DONE, State.FAILED] * 2
    for run in searched.runs:
        found = [event["event"] for event in events(searched.of(run))]
        assert found == ["begin", "end"]
    assert "no_such_network" in ending(searched.of(searched.runs[5])).reason


def test_a_search_that_has_ended_trains_nothing(
    searched: Plan, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (searched.folder / "runs").rglob("*") if path.is_file()}
    _main("search", folder / "data" / "MURA-v1.1", "--space", folder / "space.toml", "-o", searched.folder, code=3)
    assert "nothing to do" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in (searched.folder / "runs").rglob("*") if path.is_file()}
    assert after == before


def test_the_evaluation_set_is_predicted_with_the_exported_model(searched: Plan) -> None:
    table = Predictions.read(searched.of(searched.runs[1]) / EVALUATION)
    held_out = searched.held_out()
    assert [row.file for row in table] == list(held_out["image"])
    assert [row.study for row in table] == list(held_out["study"])
    assert [row.patient for row in table] == list(held_out["patient"])
    screener = Screener.load(searched.of(searched.runs[1]) / MODEL)
    again = screener.predict([held_out.root / image for image in held_out["image"]])
    assert [row.p_abnormal for row in table] == pytest.approx([row.p_abnormal for row in again])


def test_status_says_what_became_of_each_run(searched: Plan, capsys: pytest.CaptureFixture) -> None:
    _main("search", "status", searched.folder, "--format", "json")
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["done", "done", "failed"] * 2
    assert [row["epochs"] for row in rows] == ["2/2", "2/2", "0/2"] * 2
    assert all(("no_such_network" in row["reason"]) == (row["state"] == "failed") for row in rows)


def test_the_report_holds_the_leaderboard_and_asks_no_network(searched: Plan) -> None:
    _main("search", "report", searched.folder, "--resamples", 200)
    out = searched.folder / "report"
    rows = list(csv.DictReader((out / "leaderboard.csv").open()))
    assert {row["Cell"] for row in rows} == {run.cell for run in searched.runs[:2]}
    assert [row["Runs"] for row in rows] == ["2", "2"]
    single = next(row for row in rows if "abnormality" in row["Cell"])
    both = next(row for row in rows if "both" in row["Cell"])
    assert (single["Joint AUROC"], single["Joint accuracy"]) == ("-", "-")
    assert re.fullmatch(r"\d\.\d{3} \+- \d\.\d{3}", both["Joint AUROC"])
    assert float(both["Latency, ms"]) > 0
    runs = list(csv.DictReader((out / "runs.csv").open()))
    mean = sum(float(run["abnormality_auroc"]) for run in runs if run["cell"] == both["Cell"]) / 2
    assert both["Abnormality AUROC"].startswith(f"{mean:.3f}")
    assert {(run["precision"], run["fold"]) for run in runs} == {("f32", "0")}
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    for said in ("Research use, not for diagnosis", "Pareto front", "Effect of each axis", "no_such_network"):
        assert said in page
        assert said in text
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "<svg" in page


def test_the_ensemble_is_what_predict_averages(searched: Plan, capsys: pytest.CaptureFixture) -> None:
    _main("search", "ensemble", searched.folder, "--resamples", 200)
    said = capsys.readouterr().err
    value = json.loads((searched.folder / "ensemble.json").read_text())
    both = {run.cell for run in searched.runs if run.protocol.tasks == "both"}
    assert {model["cell"] for model in value["models"]} <= both
    models = re.findall(r"--model (\S+)", said)
    assert len(models) == sum(model["weight"] for model in value["models"])
    assert all(Path(model).is_file() for model in models)
    best = max(model["development_auroc"] for model in value["models"])
    assert value["development_auroc"][-1] >= best - 1e-9
    if len(models) > 1:
        assert sum(Ensemble.load(models).weights) == len(models)


def test_the_command_of_an_ensemble_is_one_for_a_shell(plan: Plan) -> None:
    spaced = Plan(Path("of two words"), "", plan.space)
    chosen = Chosen(((SimpleNamespace(run=plan.runs[0]), 2),), ())
    model = str(spaced.of(plan.runs[0]) / MODEL)
    assert shlex.split(command(spaced, chosen)) == [
        *("mskscreen", "predict", "SOURCES", "--model", model, "--model", model)
    ]


def test_dry_run_prints_cells_and_costs_and_writes_nothing(
    folder: Path, plan: Plan, capsys: pytest.CaptureFixture
) -> None:
    space = small_space(
        folder / "dry",
        'protocol="tiny.toml"\n[axes]\ninput_size=[32,64]\n[[more]]\narchitecture=["vgg16_bn(pool=gem)"]',
    )
    out = folder / "never"
    data = folder / "data" / "MURA-v1.1"
    _main("search", data, "--space", space, "--out", out, "--dry-run", "--format", "json")
    said = capsys.readouterr()
    small, large, impossible = json.loads(said.out)
    assert impossible["hours"] == 0
    assert "will fail" in said.err
    assert "wide layers" in said.err
    assert not out.exists()
    assert (small["input"], large["input"]) == (32, 64)
    assert 3 < large["petaflops"] / small["petaflops"] < 5
    assert large["petaflops"] == pytest.approx(3 * large["gflops"] * large["images"] / 1e6)
    assert {small["state"], large["state"], impossible["state"]} == {"waiting"}


def test_dry_run_foresees_absent_weights_and_counts_what_is_left(
    folder: Path, searched: Plan, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = (folder / "space.toml").read_text().partition("[[more]]")[0] + 'init = ["random", "imagenet"]'
    space = small_space(folder / "weights", text)
    data = folder / "data" / "MURA-v1.1"
    _main("search", data, "--space", space, "--out", searched.folder, "--dry-run", "--format", "json")
    said = capsys.readouterr()
    states = {(row["cell"].split()[-1], row["state"]) for row in json.loads(said.out)}
    assert states == {("random", "done"), ("imagenet", "waiting")}
    assert "4 runs: will fail where the hub is out of reach" in said.err
    _main("search", data, "--space", space, "--out", searched.folder, "--dry-run")
    assert "8 runs, 4 of them not ended: about" in capsys.readouterr().out


def test_dry_run_foresees_a_file_of_weights_that_is_not_there(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    space = small_space(tmp_path, f'protocol="tiny.toml"\n[axes]\ninit=["random", "gone.safetensors"]\n{HALVING}')
    _main("search", plan.data, "--space", space, "--out", tmp_path / "never", "--dry-run")
    said = capsys.readouterr()
    assert "1 runs: will fail: key init: 'gone.safetensors' is neither" in said.err
    assert "2 of them not ended: at most about" in said.out, "halving shortens it"
    begun = tmp_path / "begun" / "runs" / Space.from_toml(space).runs[1].name
    begun.mkdir(parents=True)
    save_state(begun, Position("", ""), {}, torch.optim.SGD([torch.zeros(1)]))
    _main("search", plan.data, "--space", space, "--out", tmp_path / "begun", "--dry-run")
    assert "will fail" not in capsys.readouterr().err, "it goes on from what it saved"


def test_a_search_that_was_stopped_does_not_say_that_all_is_well(
    folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(local, "run_here", lambda *_, **__: False)
    space = small_space(folder / "unended", 'protocol="tiny.toml"\nseeds=[41]')
    _main("search", folder / "data" / "MURA-v1.1", "--space", space, "-o", folder / "unended" / "out", code=3)
    assert "1 not ended" in capsys.readouterr().err


def test_each_slot_has_a_gpu_of_those_that_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for count in (0, 1):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert device_of(1) == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [device_of(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(5)] == ["0", "1", "2", "0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,7")
    assert [device_of(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["GPU-a", "GPU-b", "7", "GPU-a"]


@pytest.mark.parametrize("told", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_run_has_as_many_threads_as_the_environment_says_and_else_its_share(
    monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert set(threads_of(2 * cores()).values()) == {"1"}
    monkeypatch.setenv(told, "1")
    count = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    environment = os.environ | threads_of(1)
    assert environment[told] == "1"
    if told == "OMP_NUM_THREADS":
        assert subprocess.run(count, env=environment, capture_output=True, text=True).stdout == "1\n"


def test_runs_at_one_time_have_slots_of_their_own(
    folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    active: dict[str, int] = {}

    def begin(_: Plan, run: object, jobs: int, slot: int, workers: int) -> subprocess.Popen:
        assert slot in set(range(jobs)) - set(active.values())
        active[run.name] = slot
        return subprocess.Popen(["sleep", f"0.{len(active)}"])

    monkeypatch.setattr(local, "_begin", begin)
    several = _one(folder, "slots", "[axes]\nepochs=[1,2,3,4,5]")
    assert run_here(several, several.runs, jobs=2, ended=lambda run: active.pop(run.name))
    assert not active


def test_each_run_is_trained_with_so_many_workers_as_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    asked: list[int] = []

    def begin(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    def train(*_: object, workers: int, **__: object) -> SimpleNamespace:
        asked.append(workers)
        return SimpleNamespace(finished=False)

    monkeypatch.setattr(local, "subprocess", SimpleNamespace(Popen=begin, PIPE=-1, STDOUT=-2))
    monkeypatch.setattr(runner, "train", train)
    data, space = small_data(tmp_path / "data"), small_space(tmp_path, 'protocol="tiny.toml"')
    _main("search", data, "--space", space, "--out", tmp_path / "out", "--workers", 3, code=3)
    ((*_, where, name, workers),) = commands
    monkeypatch.setattr(runner.signal, "signal", lambda *_: None)
    runner.main(where, name, workers)
    assert asked == [3]


def test_a_full_disk_stops_a_search_and_fails_no_run(
    folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def train(*_: object, **__: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise DataError("cannot be written") from error

    def begin(_: Plan, run: object, jobs: int, slot: int, workers: int) -> subprocess.Popen:
        begun.append(run.name)
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({FULL})"])

    several = _one(folder, "no room", "[axes]\nepochs=[1,2]")
    first, _ = several.runs
    with monkeypatch.context() as patched:
        patched.setattr(runner, "train", train)
        with pytest.raises(DataError, match="cannot be written"):
            conduct(several, first)
        patched.setattr(runner.signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as caught:
            runner.main(str(several.folder), first.name)
    assert caught.value.code == FULL
    monkeypatch.setattr(local, "_begin", begin)
    with pytest.raises(DataError, match="disk full, stopped; make room and run the same command again"):
        run_here(several, several.runs)
    assert begun == [first.name]
    assert several.todo() == list(several.runs)


def _one(folder: Path, name: str, more: str = "") -> Plan:
    text = f'protocol="tiny.toml"\nseeds=[7]\n{more}'
    data = small_data(folder / "data") if not (folder / "data").exists() else folder / "data" / "MURA-v1.1"
    return Plan.make(folder / name, data, Space.from_toml(small_space(folder / name, text)))


def test_a_run_told_to_stop_goes_on_and_ends_once(folder: Path, plan: Plan) -> None:
    one = _one(folder, "stopped")
    (run,) = one.runs
    asked = iter([False, True])
    assert conduct(one, run, stop=lambda: next(asked)) is None
    assert ending(one.of(run)) is None
    assert [other.name for other in one.todo()] == [run.name]
    assert conduct(one, run).state is State.DONE
    assert [event["event"] for event in events(one.of(run))] == ["begin", "save", "begin", "end"]


def test_halving_stops_what_is_behind_and_never_the_best(folder: Path, plan: Plan) -> None:
    halved = _one(folder, "halved", f"[axes]\nrate=[3e-3, 1e-3, 1e-4]\n{HALVING}")
    first, behind, killed = halved.runs
    assert conduct(halved, first).state is State.DONE
    # No run is better than this.
    (halved.of(first) / "metrics.csv").write_text("epoch,abnormality_auroc\n1,2.0\n2,2.0\n")
    end = conduct(halved, behind)
    assert end.state is State.STOPPED
    assert "1 of 2 runs were better" in end.reason
    assert len((halved.of(behind) / "metrics.csv").read_text().splitlines()) == 2
    left = {path.name for path in halved.of(behind).iterdir()}
    assert {"best.safetensors", "last.safetensors"} <= left
    assert "state.safetensors" not in left, "nothing goes on from it"

    halved.of(killed).mkdir()
    (halved.of(killed) / "metrics.csv").write_text("epoch,abnormality_auroc\n1,0.0\n")
    assert conduct(halved, killed).state is State.STOPPED
    assert not (halved.of(killed) / "best.safetensors").exists(), "it trained before it was judged"


def test_a_process_that_is_killed_leaves_its_run_failed_with_the_reason(folder: Path, plan: Plan) -> None:
    one = _one(folder, "killed")
    (run,) = one.runs

    def kill() -> bool:
        for event in events(one.of(run)):
            os.kill(int(event["where"].rsplit(" ", 1)[1]), signal.SIGKILL)
        return False

    told: list[str] = []
    assert run_here(one, one.todo(), stop=_once(kill, one, run), ended=lambda run: told.append(run.name))
    assert told == [run.name]
    assert ending(one.of(run)).state is State.FAILED
    assert "killed by signal 9" in ending(one.of(run)).reason


def _once(action: Callable[[], bool], plan: Plan, run: object) -> Callable[[], bool]:
    """An action until the run has ended: its process may be gone by then."""
    return lambda: False if ending(plan.of(run)) else action()
