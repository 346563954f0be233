"""The same search on a Ray cluster: whatever is lost on the way, every run ends exactly once."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_search import PROTOCOL, small_data, small_space

from mskscreen.cli.main import run as command
from mskscreen.search.plan import Plan, State, ending, events

SPACE = 'protocol = "tiny.toml"\nseeds = [0, 1, 2]'


def _drive(*arguments: object) -> subprocess.CompletedProcess:
    script = Path(__file__).parent / "two_nodes.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _history(plan: Plan) -> list[list[str]]:
    return [[event["event"] for event in events(plan.of(run))] for run in plan.runs]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:none", "nowhere"])
def test_where_no_cluster_answers_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        # Bound and not listening: no one else can be there.
        taken.bind(("127.0.0.1", 0))
        address = address.format(port=taken.getsockname()[1])
        data, space = small_data(tmp_path / "data"), small_space(tmp_path, SPACE)
        arguments = ["search", data, "--space", space, "--out", tmp_path / "out", "--ray", address]
        monkeypatch.setattr(sys, "argv", ["mskscreen", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command()
    assert ended.value.code == 1
    assert f"no Ray cluster answers at '{address}'; start one with" in capsys.readouterr().err.replace("\n", " ")


def test_a_signal_saves_what_was_begun_and_begins_nothing_more(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = small_data(tmp_path / "data")
    space = small_space(tmp_path, SPACE, PROTOCOL.replace("epochs = 2", "epochs = 100000"))
    stopped = _drive(data, space, tmp_path / "search", "signals")
    assert stopped.stdout.count("exit code 3") == 2, stopped.stderr
    assert stopped.stderr.count("stopped; what was begun is saved, and the same command goes on") == 2
    assert stopped.stderr.count("3 not ended") == 2
    assert "Traceback" not in stopped.stderr
    plan = Plan.read(tmp_path / "search")
    histories = [event for history in _history(plan) for event in history]
    assert sorted(histories) == ["begin", "begin", "save", "save"]
    assert not list(plan.folder.glob(".stop*"))


def test_a_search_survives_the_loss_of_a_node_and_of_its_head(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = small_data(tmp_path / "data")
    space = small_space(tmp_path, SPACE)
    search = tmp_path / "search"

    lost_head = _drive(data, space, search, "head")
    assert lost_head.returncode == -signal.SIGKILL, lost_head.stderr
    plan = Plan.read(search)
    ended = {run.name for run in plan.runs if ending(plan.of(run))}
    assert 0 < len(ended) < len(plan.runs)
    before = dict(zip((run.name for run in plan.runs), _history(plan), strict=True))

    lost_node = _drive(data, space, search, "worker")
    assert lost_node.returncode == 0, lost_node.stderr
    assert "killed the node" in lost_node.stdout
    assert "usage told: 0" in lost_node.stdout
    assert "connected" in lost_node.stdout, "who drives the search had begun Ray"
    assert [ending(plan.of(run)).state for run in plan.runs] == [State.DONE] * len(plan.runs)
    for run, history in zip(plan.runs, _history(plan), strict=True):
        assert history.count("end") == 1
        assert history[-1] == "end"
        if run.name in ended:
            assert history == before[run.name], "a finished run was begun again"
    assert sum(history.count("begin") for history in _history(plan)) > len(plan.runs)
