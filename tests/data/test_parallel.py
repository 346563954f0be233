"""One result an item, in its place, whatever becomes of the processes."""

import subprocess
import sys

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
