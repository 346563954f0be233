"""Resumable output: rows go to a journal beside the output as they are made, and the table is made of it.

The journal is JSON lines: what the job is, then one row a line with the size and time of its file. A run that
was killed leaves it behind; the same command then goes on from there, and ends with the same table. Rows with an
error are tried again, also those of a table that is finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mskscreen.errors import DataError
from mskscreen.inference.files import file_named, printable
from mskscreen.lock import take
from mskscreen.predictions import Prediction, Predictions, read_images, row_of, table_format, write_table
from mskscreen.storage import MAKE_ROOM, cache_folder, disk_full, unwritable, write_text

Job = Mapping[str, Any]
# Of a file: whether all that was made beside its row, such as a picture, is still there.
Whole = Callable[[str], bool]
Stream = Callable[[Sequence[Path]], Generator[Prediction]]
_WITHOUT_MODEL = ("jsonl", "csv")


def _always(_: str) -> bool:
    return True


def write_resumable(
    output: Path, files: Sequence[Path], stream: Stream, job: Job, whole: Whole = _always
) -> Iterator[Prediction]:
    """Screen `files` with `stream` into the table `output`; yields the rows, those of an earlier run first.

    `job` is all that decides the rows: it becomes the model of the table, and must hold its `threshold`. The
    table appears, whole, once the iterator has ended; until then the rows are in the journal. Rows that are not
    `whole` are made again.

    Raises DataError where the output cannot be written or has an unknown suffix.
    """
    table_format(output)
    try:
        yield from _write_resumable(output, files, stream, job, whole)
    except OSError as error:
        if not disk_full(error):
            raise
        # A picture that is drawn with a row names itself; its folders may tell the patient and the label.
        full = output if error.filename in (None, str(output)) else Path(error.filename).name
        raise DataError(f"{full}: no room is left to write it; {MAKE_ROOM}, which goes on from there") from error


def _write_resumable(
    output: Path, files: Sequence[Path], stream: Stream, job: Job, whole: Whole
) -> Iterator[Prediction]:
    names = [printable(path) for path in files]
    digest = job_digest(names, job)
    if why := unwritable(output):
        raise DataError(f"{output}: {why}")
    with Journal(output, job, names, whole) as journal:
        journal.keep(read_finished(output, digest))
        yield from (journal[name] for name in names if name in journal)
        todo = [path for path, name in zip(files, names, strict=True) if name not in journal]
        with closing(stream(todo)) as rows:
            for row in rows:
                journal.add(row)
                yield row
        write_table(output, (journal[name] for name in names), {**job, "job": digest}, job["threshold"])
        if table_format(output) in _WITHOUT_MODEL and not _undigested(job):
            _record(output, digest)
    journal.path.unlink(missing_ok=True)


def finished(output: Path, files: Sequence[Path], job: Job, whole: Whole = _always) -> Predictions | None:
    """The table at `output` where it is that of this very job, without an error and with all rows `whole`.

    A journal that a run left when it was killed after its last row is taken away.
    """
    if not output.exists():  # before each of the files is asked for its time
        return None
    table = read_finished(output, job_digest([printable(path) for path in files], job))
    if table is None or any(row.error or not whole(row.file) for row in table):
        return None
    journal = Journal(output, job)
    if journal.path.exists():
        with journal:
            pass
        journal.path.unlink(missing_ok=True)
    return table


def read_finished(output: Path, digest: str) -> Predictions | None:
    """The table at `output` where it is of the job `digest`.

    json and parquet say what they were made of; of jsonl and csv that are unchanged, a note in the cache folder.
    None, too, where a server did not say the digest of its model, which may have been replaced since, and where an
    older version wrote no threshold.
    """
    if not output.exists():
        return None
    recorded = table_format(output) in _WITHOUT_MODEL
    try:
        if recorded and _place(output).read_text() != _recorded(output, digest):
            return None
        table = Predictions.read(output)
    except (OSError, DataError):
        return None
    if recorded:
        return table if "threshold" in table.model else None
    return None if table.model.get("job") != digest or _undigested(table.model) else table


def _undigested(model: Mapping[str, Any]) -> bool:
    """Whether it is not known which file a model, or one of an ensemble, was."""
    return any(each.get("sha256") == "" for each in (model, *model.get("members", ())))


def _record(output: Path, digest: str) -> None:
    """Note in the cache folder which job has ended with this table; a run that finds no note does all again."""
    with suppress(OSError):
        _place(output).parent.mkdir(parents=True, exist_ok=True)
        write_text(_place(output), _recorded(output, digest))


def _recorded(output: Path, digest: str) -> str:
    with output.open("rb") as stream:
        return f"{digest} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n"


def _place(output: Path) -> Path:
    """The file of a table's note: no folder or name is told, which may be those of a patient."""
    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()
    return cache_folder() / "tables" / name


def check_replaceable(output: Path, files: Sequence[Path]) -> None:
    """Raise DataError where writing the predictions of `files` to `output` would lose something else."""
    if not output.exists():
        return
    remedy = "choose another name, or give --overwrite to replace it"
    try:
        held = {row.file for row in read_images(output)[0]}
    except DataError as error:
        raise DataError(f"{output}: exists already and is no predictions table; {remedy}") from error
    if lost := len(held - {printable(path) for path in files}):
        raise DataError(f"{output}: holds predictions of {lost} images that are not among the sources; {remedy}")


def job_digest(files: Sequence[str], job: Job) -> str:
    """SHA-256 over the job and the names, sizes and times of its files."""
    digest = hashlib.sha256(json.dumps(dict(job), sort_keys=True).encode())
    for file in files:
        digest.update(json.dumps([file, _stamp(file)]).encode())
    return digest.hexdigest()


class Journal:
    """The rows made so far for the table `output`, on disk; in memory is only where they are.

    A journal of another job is thrown away, and so are rows with an error, rows that are not `whole`, and rows of
    files that have changed since. Use as a context manager; DataError says that another run has the journal open.
    """

    def __init__(self, output: Path, job: Job, files: Iterable[str] = (), whole: Whole = _always) -> None:
        """Of `files`, where they are known beforehand, no second copy of a name is kept."""
        self.path = output.with_name(output.name + ".journal")
        self._job = json.dumps({"job": dict(job)}, sort_keys=True).encode() + b"\n"
        self._places: dict[str, int | None] = dict.fromkeys(files)
        self._whole = whole

    def __enter__(self) -> Journal:
        try:
            self._stream = self.path.open("a+b")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            take(self._stream)
        except BlockingIOError as error:
            self._stream.close()
            raise DataError(
                f"{self.path}: another run writes it now; wait for its end, or choose another output"
            ) from error
        self._stream.seek(0)
        if self._stream.readline() == self._job:
            self._resume()
        else:
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(self._job)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def __contains__(self, file: str) -> bool:
        return self._places.get(file) is not None

    def __getitem__(self, file: str) -> Prediction:
        place = self._places[file]
        if place is None:
            raise KeyError(file)
        self._stream.seek(place)
        return row_of(json.loads(self._stream.readline())["row"])

    def add(self, row: Prediction) -> None:
        """Keep a row; it is in the hands of the operating system when this returns."""
        entry = {"stamp": _stamp(row.file), "row": dataclasses.asdict(row)}
        self._places[row.file] = self._stream.seek(0, 2)
        self._stream.write(json.dumps(entry).encode() + b"\n")
        self._stream.flush()

    def keep(self, table: Predictions | None) -> None:
        """Take over the rows of a table that have no error, are whole and are not here yet."""
        for row in table or ():
            if row.error is None and row.file not in self and self._whole(row.file):
                self.add(row)

    def _resume(self) -> None:
        """Find the rows without an error that hold and are whole, and cut off what follows the last whole line."""
        place = self._stream.tell()
        for line in self._stream:
            try:
                entry = json.loads(line if line.endswith(b"\n") else b"")
                row = row_of(entry["row"])
                stamp = entry["stamp"]
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                break
            if row.error is None and stamp == _stamp(row.file) and self._whole(row.file):
                self._places[row.file] = place
            place += len(line)
        self._stream.truncate(place)


def _stamp(file: str) -> list[int] | None:
    try:
        status = file_named(file).stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
