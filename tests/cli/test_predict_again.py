"""`mskscreen predict` stopped, killed and run again: nothing is done twice and nothing is lost."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mskscreen.cli import common
from mskscreen.inference import Screener
from mskscreen.predictions import Predictions


def test_a_finished_table_without_errors_is_left_alone_until_something_changes(
    run: Callable, mura: Path, tmp_path: Path, write_png: Callable
) -> None:
    output = tmp_path / "table.parquet"
    run(mura, "-o", output)
    first = Predictions.read(output)
    again = run(mura, "-o", output)
    assert (again.code, "finished already" in again.err) == (3, False)
    assert Predictions.read(output) == first
    assert run(mura, "-o", output, "--at", "specific").code == 3
    assert Predictions.read(output).threshold == 0.8
    write_png(mura / "XR_HAND/patient00002/study1_negative/image2.png")
    assert run(mura, "-o", output, "--at", "specific").code == 0
    assert [row.error for row in Predictions.read(output)] == [None] * 5
    before = output.stat().st_mtime_ns, output.stat().st_ino
    again = run(mura, "-o", output, "--at", "specific")
    assert (again.code, "finished already" in again.err) == (0, True)
    assert (output.stat().st_mtime_ns, output.stat().st_ino) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MURA-v1.1", "table.parquet"]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_map_that_was_deleted_is_drawn_again(
    run: Callable, tmp_path: Path, write_png: Callable, form: str
) -> None:
    images, maps = tmp_path / "images", tmp_path / "maps"
    for seed in range(3):
        write_png(images / f"{seed}.png", seed)
    asked = (images, "-o", tmp_path / f"table.{form}", "--maps", maps)
    assert run(*asked).code == 0
    before = {path: path.read_bytes() for path in maps.iterdir()}
    table = asked[2].read_bytes()
    assert len(before) == 3
    kept = {path: path.stat().st_ino for path in sorted(before)[1:]}
    min(before).unlink()
    again = run(*asked)
    assert (again.code, "finished already" in again.err) == (0, False)
    assert {path: path.read_bytes() for path in maps.iterdir()} == before
    assert {path: path.stat().st_ino for path in kept} == kept
    assert asked[2].read_bytes() == table
    assert "finished already" in run(*asked).err


def slow_folder(folder: Path, count: int) -> Path:
    """Many names of one image that takes a while to decode."""
    folder.mkdir()
    ramp = np.add.outer(np.arange(2000), np.arange(2000))
    Image.fromarray((ramp % 251).astype(np.uint8)).save(folder.parent / "large.png")
    for i in range(count):
        (folder / f"{i}.png").hardlink_to(folder.parent / "large.png")
    return folder


def start(*arguments: object) -> subprocess.Popen:
    """Run the command in a process of its own."""
    code = "from mskscreen.cli.main import run; run()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "predict", *map(str, arguments), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_goes_on_and_ends_with_the_same_table(run: Callable, model: Path, tmp_path: Path) -> None:
    folder = slow_folder(tmp_path / "images", 30)
    output, journal = tmp_path / "table.csv", tmp_path / "table.csv.journal"
    process = start(folder, "--model", model, "-o", output)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not output.exists()
    rows = journal.read_bytes().count(b"\n") - 1
    with journal.open("ab") as stream:
        stream.write(b'{"stamp": [1, 2], "row": {"file": "half a li')
    inode = journal.stat().st_ino
    made = []
    original = Screener._decode

    def counted(self: Screener, file: str, source: Any, *, keep: bool) -> Any:
        made.append((file, journal.stat().st_ino))
        return original(self, file, source, keep=keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screener, "_decode", counted)
        assert run(folder, "-o", output).code == 0
    assert len(made) == 30 - rows
    assert {where for _, where in made} == {inode}
    assert not journal.exists()
    assert run(folder, "-o", tmp_path / "whole.csv").code == 0
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_journal_of_another_job_is_not_believed(run: Callable, mura: Path, tmp_path: Path) -> None:
    output, journal = tmp_path / "table.jsonl", tmp_path / "table.jsonl.journal"
    journal.write_text('{"job": {"model": "another"}}\n{"stamp": null, "row": {"file": "x", "study": "y"}}\n')
    assert run(mura, "-o", output).code == 3
    assert len(Predictions.read(output)) == 5
    assert not journal.exists()


def test_ctrl_c_ends_with_what_is_done(model: Path, tmp_path: Path) -> None:
    folder = slow_folder(tmp_path / "images", 60)
    process = start(folder, "--model", model, "--format", "json")
    assert process.stdout is not None
    head = "".join(process.stdout.readline() for _ in range(4))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    table, err = json.loads(head + process.stdout.read()), process.stderr.read()
    assert process.wait() == 1
    assert 2 <= len(table["images"]) < 60
    assert sum(study["images"] for study in table["studies"]) == len(table["images"])
    assert f"stopped after {len(table['images'])} of 60 images" in err
    assert "Traceback" not in err


class AtOnceError(Exception):
    """A KeyboardInterrupt that went astray would end the worker of pytest instead of the test."""


def at_once(*_: object) -> None:
    raise AtOnceError


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def heeded(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    before = signal.signal(request.param, at_once)
    yield request.param
    signal.signal(request.param, before)


def test_the_second_ctrl_c_stops_at_once(heeded: signal.Signals) -> None:
    with common.interruptible(signal.SIGTERM) as interrupted:
        assert not interrupted()
        signal.raise_signal(heeded)
        assert interrupted()
        with pytest.raises(AtOnceError):
            signal.raise_signal(heeded)
    assert signal.getsignal(heeded) is at_once
