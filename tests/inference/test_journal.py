"""A table whose making may stop at any row."""

import itertools
import json
import os
import resource
import shutil
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mskscreen.errors import DataError
from mskscreen.inference.files import printable
from mskscreen.inference.journal import finished, write_resumable
from mskscreen.predictions import FLAG_ERROR, FORMATS, Prediction, Predictions

JOB: dict[str, Any] = {"name": "m", "threshold": 0.5}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        path.write_text(path.name)
    return paths


@pytest.fixture
def screened() -> list[Path]:
    return []


@pytest.fixture
def stream(screened: list[Path]) -> Callable:
    """Rows that hold the content of their files; those that were asked for are listed in `screened`."""

    def rows(paths: Sequence[Path]) -> Generator[Prediction]:
        for path in paths:
            screened.append(path)
            text = path.read_text()
            bad = {"error": "broken", "flags": (FLAG_ERROR,)} if text == "broken" else {}
            yield Prediction(printable(path), text, **bad)

    return rows


def contents(path: Path) -> list[str]:
    return [row.study for row in Predictions.read(path)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 4), max_size=3), cut=st.integers(0, 30))
def test_wherever_it_stops_the_table_is_the_same_and_nothing_is_screened_twice(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable, stops: list[int], cut: int
) -> None:
    output, journal = tmp_path / "table.jsonl", tmp_path / "table.jsonl.journal"
    for path in (output, journal):
        path.unlink(missing_ok=True)
    screened.clear()
    for stop in stops:
        rows = write_resumable(output, files, stream, JOB)
        list(itertools.islice(rows, stop))
        rows.close()  # type: ignore[attr-defined]
        assert not output.exists()
        if journal.exists():
            with journal.open("ab") as stream_:
                stream_.write(b'{"stamp": [1, 2], "row": {"file": "x"'[:cut])
    assert [row.study for row in write_resumable(output, files, stream, JOB)] == [path.name for path in files]
    assert contents(output) == [path.name for path in files]
    assert sorted(screened) == files
    assert not journal.exists()


def test_a_file_that_changed_is_screened_again(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable
) -> None:
    output = tmp_path / "table.csv"
    rows = write_resumable(output, files, stream, JOB)
    list(itertools.islice(rows, 4))
    del rows
    files[1].write_text("another content")
    files[2].write_text("2.pnG")
    os.utime(files[2], (1, 1))
    screened.clear()
    list(write_resumable(output, files, stream, JOB))
    assert screened == [files[1], files[2], files[4], files[5]]
    assert contents(output)[1:3] == ["another content", "2.pnG"]


def test_a_row_that_is_not_whole_is_made_again(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable
) -> None:
    output = tmp_path / "table.csv"

    def whole(file: str) -> bool:
        return file != str(files[1])

    rows = write_resumable(output, files, stream, JOB)
    list(itertools.islice(rows, 3))
    del rows
    screened.clear()
    list(write_resumable(output, files, stream, JOB, whole))
    assert screened == [files[1], *files[3:]]
    assert finished(output, files, JOB) is not None
    assert finished(output, files, JOB, whole) is None
    screened.clear()
    list(write_resumable(output, files, stream, JOB, whole))
    assert screened == [files[1]]
    assert contents(output) == [path.name for path in files]


def test_a_file_whose_name_is_not_utf_8_is_screened_again_when_it_changed(
    tmp_path: Path, screened: list[Path], stream: Callable
) -> None:
    path = tmp_path / os.fsdecode(b"\xe9\xff.png")
    path.write_text("one")
    output = tmp_path / "table.jsonl"
    list(write_resumable(output, [path], stream, JOB))
    assert finished(output, [path], JOB) is not None
    path.write_text("another")
    assert finished(output, [path], JOB) is None
    assert list(write_resumable(output, [path], stream, JOB))
    assert screened == [path, path]


def test_files_that_come_and_go_between_two_runs(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable
) -> None:
    output = tmp_path / "table.csv"
    rows = write_resumable(output, files[1:], stream, JOB)
    list(itertools.islice(rows, 3))
    del rows
    screened.clear()
    list(write_resumable(output, [files[0], *files[2:]], stream, JOB))
    assert screened == [files[0], files[4], files[5]]
    assert contents(output) == ["0.png", "2.png", "3.png", "4.png", "5.png"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_finished_table_is_known_by_its_job_and_its_files(
    tmp_path: Path, files: list[Path], stream: Callable, form: str
) -> None:
    output = tmp_path / f"table.{form}"
    assert finished(output, files, JOB) is None
    list(write_resumable(output, files, stream, JOB))
    table = finished(output, files, JOB)
    assert table is not None
    assert len(table) == 6
    assert finished(output, files[1:], JOB) is None
    assert finished(output, files, JOB | {"threshold": 0.4}) is None
    files[3].write_text("changed")
    assert finished(output, files, JOB) is None
    output.write_text("damaged")
    assert finished(output, files, JOB) is None


@pytest.mark.parametrize("form", FORMATS)
def test_a_table_of_a_model_that_is_not_known_by_its_digest_is_never_finished(
    tmp_path: Path, files: list[Path], stream: Callable, form: str
) -> None:
    output = tmp_path / f"table.{form}"
    known = {"name": "a", "sha256": "00"}
    for members, is_finished in (([known, known], True), ([known, known | {"sha256": ""}], False)):
        job = {**JOB, "sha256": "of both", "members": members}
        list(write_resumable(output, files, stream, job))
        assert (finished(output, files, job) is not None) == is_finished


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_table_that_somebody_changed_is_not_finished(
    tmp_path: Path, files: list[Path], stream: Callable, form: str
) -> None:
    output = tmp_path / f"table.{form}"
    list(write_resumable(output, files, stream, JOB))
    text = output.read_text()
    output.write_text(text.replace("3.png", "4.png", 1))
    assert finished(output, files, JOB) is None
    output.write_text(text)
    assert finished(output, files, JOB) is not None
    shutil.rmtree(os.environ["MSKSCREEN_CACHE"])
    assert finished(output, files, JOB) is None


def test_a_journal_left_beside_a_finished_table_is_taken_away(
    tmp_path: Path, files: list[Path], stream: Callable
) -> None:
    output, journal = tmp_path / "table.json", tmp_path / "table.json.journal"
    list(write_resumable(output, files, stream, JOB))
    journal.write_text('{"job": {"name": "m", "threshold": 0.5}}\n')
    assert finished(output, files, JOB | {"threshold": 0.4}) is None
    assert journal.exists()
    assert finished(output, files, JOB) is not None
    assert not journal.exists()


def test_of_two_runs_on_one_output_the_second_is_refused(
    tmp_path: Path, files: list[Path], stream: Callable
) -> None:
    output = tmp_path / "table.csv"
    first = write_resumable(output, files, stream, JOB)
    next(first)
    with pytest.raises(DataError, match=r"table\.csv\.journal: another run writes it now"):
        next(write_resumable(output, files, stream, JOB | {"threshold": 0.4}))
    assert len(list(first)) == 5
    assert contents(output) == [path.name for path in files]


def test_the_output_must_be_writable_and_of_a_known_format(
    tmp_path: Path, files: list[Path], stream: Callable
) -> None:
    for name in ("no/folder/table.csv", "table.xlsx"):
        with pytest.raises(DataError, match="table"):
            list(write_resumable(tmp_path / name, files, stream, JOB))
    assert not (tmp_path / "table.xlsx.journal").exists()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("room", [600, 1500])
def test_a_full_disk_is_said_and_loses_no_whole_row(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable, form: str, room: int
) -> None:
    output = tmp_path / f"table.{form}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(DataError, match=rf"table\.{form}: no room is left"):
            list(write_resumable(output, files, stream, JOB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not output.exists()
    list(write_resumable(output, files, stream, JOB))
    assert contents(output) == [path.name for path in files]
    assert len(screened) <= len(files) + 1


def test_a_journal_is_json_lines_that_say_what_the_job_is(
    tmp_path: Path, files: list[Path], stream: Callable
) -> None:
    rows = write_resumable(tmp_path / "table.csv", files, stream, JOB)
    next(rows)
    head, first = [json.loads(line) for line in (tmp_path / "table.csv.journal").read_text().splitlines()]
    assert head == {"job": JOB}
    assert first["row"]["file"] == str(files[0])


@pytest.mark.parametrize("line", ["{}", '{"stamp": null, "row": {"error": null}}', "7", "[" * 100_000])
def test_what_follows_a_line_that_holds_no_row_is_screened_again(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable, line: str
) -> None:
    output = tmp_path / "table.csv"
    list(itertools.islice(write_resumable(output, files, stream, JOB), 2))
    journal = output.with_name("table.csv.journal")
    head, first, second = journal.read_text().splitlines()
    journal.write_text("\n".join([head, first, line, second]) + "\n")
    screened.clear()
    list(write_resumable(output, files, stream, JOB))
    assert screened == files[1:]
    assert contents(output) == [path.name for path in files]


@pytest.mark.parametrize("form", FORMATS)
def test_rows_with_an_error_are_tried_again_and_no_others(
    tmp_path: Path, files: list[Path], screened: list[Path], stream: Callable, form: str
) -> None:
    output = tmp_path / f"table.{form}"
    files[1].write_text("broken")
    list(itertools.islice(write_resumable(output, files, stream, JOB), 4))
    list(write_resumable(output, files, stream, JOB))
    assert sorted(screened) == sorted([*files, files[1]])
    assert finished(output, files, JOB) is None
    screened.clear()

    def mended(paths: Sequence[Path]) -> Generator[Prediction]:
        screened.extend(paths)
        yield from (Prediction(str(path), path.name) for path in paths)

    assert len(list(write_resumable(output, files, mended, JOB))) == 6
    assert screened == [files[1]]
    assert contents(output) == [path.name for path in files]
    assert finished(output, files, JOB) is not None
