"""One result an item, in its place, whatever becomes of the processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from image_files import square_or_die

from mskscreen.data.journal import Journal
from mskscreen.workers import in_blocks


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_has_its_result(workers):
    blocks = [[1, 2, 3], [4], [], [5, 6]]
    results = dict(in_blocks(square_or_die, blocks, workers=workers, crashed=int))
    assert results == {0: [1, 4, 9], 1: [16], 2: [], 3: [25, 36]}


def test_an_item_that_kills_its_process_fails_alone():
    blocks = [[1, 2], [11, 12, 13, 14], [3], [4, 5], [6]]
    results = dict(in_blocks(square_or_die, blocks, workers=2, crashed=lambda number: -number))
    assert results == {0: [1, 4], 1: [121, 144, -13, 196], 2: [9], 3: [16, 25], 4: [36]}


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_a_journal_drops_the_line_that_was_cut_off_and_goes_on(tmp_path, cut):
    path = tmp_path / "j"
    journal = Journal(path, "job")
    journal.append({"block": 0})
    journal.append({"block": 1})
    journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal(path, "job")
    assert journal.records == [{"block": 0}]
    journal.append({"block": 2})
    journal.close()
    assert Journal(path, "job").records == [{"block": 0}, {"block": 2}]
    assert Journal(path, "another").records == []
    assert Journal(path, "job").records == []


def test_processes_that_cannot_start_are_one_error(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from mskscreen.workers import in_blocks\n"
        "print(list(in_blocks(abs, [[1], [2]], workers=2, crashed=lambda item: None)))\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == 1
    assert "worker processes do not start" in result.stderr.splitlines()[-1]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from image_files import hold
from mskscreen.workers import in_blocks

if __name__ == "__main__":
    for _ in in_blocks(hold, [[sys.argv[2]], [sys.argv[2] + "2"]], workers=2, crashed=str):
        os.kill(os.getpid(), signal.SIGKILL)
"""
WAIT = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX)"


def test_processes_end_with_the_parent_that_is_killed(tmp_path):
    file = tmp_path / "held"
    (tmp_path / "held2").touch()
    file.touch()
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(file)]
    assert subprocess.run(arguments).returncode == -9
    for path in (file, tmp_path / "held2"):
        subprocess.run([sys.executable, "-c", WAIT, str(path)], check=True, timeout=60)


def test_every_process_has_one_thread_and_this_one_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    results = dict(in_blocks(os.getenv, [["OMP_NUM_THREADS"]] * 3, workers=2, crashed=str))
    assert results == {0: ["1"], 1: ["1"], 2: ["1"]}
    assert os.environ["OMP_NUM_THREADS"] == "5"
