"""The verbs of `mskscreen phantom`, on a set of tiny images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mskscreen.cli.main import app


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["phantom", *map(str, words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "set"
    done = run("make", folder, "--studies", 16, "--seed", 3, "--long-side", 64, "--pairs", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "16 studies made" in done.stderr
    return folder


def test_what_is_made_can_be_summed_up_and_made_no_second_time(folder):
    assert any((folder / "twins").rglob("*.png"))
    lines = {line["kind"]: line for line in json.loads(run("summary", folder, "--format", "json").stdout)}
    assert lines["abnormal"]["studies"] + lines["normal"]["studies"] == 16
    again = run("make", folder, "--studies", 16, "--seed", 3, "--long-side", 64, "--pairs")
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr
    other = run("make", folder, "--studies", 17, "--seed", 3, "--long-side", 64, "--pairs")
    assert "was made with studies 16" in str(other.exception)


ON_ONE_CORE = """
import os, resource, sys
from mskscreen.cli.main import app

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
app(["phantom", "make", sys.argv[1], "--studies", "2", "--long-side", "64"], standalone_mode=False)
print("of other processes:", resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot keep a process to a core")
def test_a_process_kept_to_one_core_starts_no_other(tmp_path):
    made = subprocess.run([sys.executable, "-c", ON_ONE_CORE, tmp_path / "set"], capture_output=True, text=True)
    assert made.stdout.endswith("of other processes: 0.0\n"), made.stderr


@pytest.mark.parametrize("pairs", [False, True])
def test_a_sheet_has_the_columns_asked_for(folder, tmp_path, pairs):
    flags = ["--pairs"] if pairs else []
    done = run("sheet", folder, tmp_path / "sheet.png", "--images", 4, "--columns", 3, "--cell", 80, *flags)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 3 * (80 * (1 + pairs) + 4)


@pytest.mark.parametrize("words", ["--columns 0", "--images 0", "--cell 0"])
def test_sheets_of_nothing_are_a_wrong_call(folder, tmp_path, words):
    assert run("sheet", folder, tmp_path / "sheet.png", *words.split()).exit_code == 2


@pytest.mark.parametrize(
    "words", ["--columns 1 --images 40 --cell 5000", "--cell 1000000", "--columns 9 --cell 8000"]
)
def test_a_sheet_beyond_what_a_picture_can_hold_is_refused_before_it_is_drawn(folder, tmp_path, words):
    refused = run("sheet", folder, tmp_path / "sheet.png", *words.split())
    assert "choose a smaller --cell or fewer --images" in str(refused.exception)
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    "words", ["--workers -1", "--studies 0", "--seed -1", "--long-side 63", "--long-side 4097"]
)
def test_what_cannot_be_made_is_a_wrong_call(tmp_path, words):
    assert run("make", tmp_path / "set", *words.split()).exit_code == 2
    assert not (tmp_path / "set").exists()
