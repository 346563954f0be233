"""The script behind `make examples` still makes what is committed."""

import csv
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def truth(folder: Path) -> list[dict[str, str]]:
    """What is said of every file but its visibility, which changes with size."""
    with (folder / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name != "visibility"} for row in rows]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made(tmp_path) -> Path:
    script = runpy.run_path(str(ROOT / "tools" / "make_examples.py"))
    # What the script's functions see are these, not a copy.
    script["main"].__globals__.update(EXAMPLES=tmp_path / "examples", LONG_SIDE=64)
    script["main"]()
    return tmp_path / "examples"


def test_examples_made_again_are_the_same_files_with_the_same_truth(made):
    assert files(made) == files(ROOT / "examples")
    assert truth(made) == truth(ROOT / "examples")
