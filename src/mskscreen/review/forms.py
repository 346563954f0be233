"""The forms of the readers: one CSV a reader and phase, one row a case in the order in which it is read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mskscreen.errors import DataError
from mskscreen.review.protocol import AIDED, CALLS, CONFIDENCE, JUDGEMENTS, Key
from mskscreen.storage import write_text

_FIXED = ("reader", "phase", "order", "case", "views")
_ANSWERS = ("call", "confidence", "map", "box")


@dataclass(frozen=True)
class Box:
    """A rectangle on a view (numbered from 0), in pixels of the radiograph with the first at (0, 0)."""

    view: int
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float) -> bool:
        """Whether a point lies in it."""
        return self.left <= x <= self.right and self.top <= y <= self.bottom


@dataclass(frozen=True)
class Answer:
    """What a reader said of a code; numbers index the protocol's answers, None where nothing was said."""

    reader: str
    code: str
    call: int | None
    confidence: int | None
    judgement: int | None
    boxes: tuple[Box, ...]


def write_form(path: Path, reader: str, phase: str, order: Sequence[str], views: Mapping[str, int]) -> None:
    """Write the empty form of a reader in a phase; only the aided one asks about the map."""
    asked = [name for name in _ANSWERS if name != "map" or phase == AIDED]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_FIXED, *asked])
    for number, code in enumerate(order, 1):
        writer.writerow([reader, phase, number, code, views[code], *("" for _ in asked)])
    write_text(path, stream.getvalue())


def read_forms(paths: Iterable[Path], key: Key) -> list[Answer]:
    """The answers of all forms; rows without a call, a judgement or a box are left out.

    Raises DataError that names the file, the row and the field.
    """
    found: dict[tuple[str, str], Answer] = {}
    for path in paths:
        for number, row in enumerate(_rows(path), 2):
            answer = _answer(row, f"{path}: line {number}", key)
            if found.setdefault((answer.reader, answer.code), answer) != answer:
                raise DataError(
                    f"{path}: line {number}: reader '{answer.reader}' answers case {answer.code} twice and "
                    "differently; keep the first answer"
                )
    answers = [a for a in found.values() if (a.call, a.judgement) != (None, None) or a.boxes]
    if not answers:
        raise DataError("no form holds an answer; fill in the column 'call' of the forms")
    return answers


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        # Spreadsheets of half of the world write ; between cells.
        first = text.partition("\n")[0]
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in first else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8 ({error}); save the form again as such") from error
    missing = next((name for name in ("reader", "case", "call") if not rows or name not in rows[0]), None)
    if missing:
        raise DataError(f"{path}: no column '{missing}'; use the form of the pack")
    return [{name: (value or "").strip() for name, value in row.items() if name} for row in rows]


def _answer(row: Mapping[str, str], where: str, key: Key) -> Answer:
    showing = key.showings.get(row["case"])
    if showing is None or row.get("phase", showing.phase) != showing.phase:
        raise DataError(
            f"{where}: case '{row['case']}' is not in this phase of the pack; use the form of the pack"
        )
    if row["reader"] not in key.protocol["readers"]:
        raise DataError(f"{where}: reader '{row['reader']}' is not in the protocol; use the form of the pack")
    views = key.cases[showing.case].views
    return Answer(
        row["reader"],
        row["case"],
        _choice(row, "call", CALLS, where),
        _choice(row, "confidence", CONFIDENCE, where),
        _choice(row, "map", JUDGEMENTS, where),
        tuple(_box(text, len(views), where) for text in row.get("box", "").split(";") if text.strip()),
    )


def _choice(row: Mapping[str, str], column: str, choices: Sequence[str], where: str) -> int | None:
    text = row.get(column, "").lower()
    if not text:
        return None
    if text not in choices:
        raise DataError(f"{where}: {column} '{row[column]}' is none of {', '.join(choices)}; correct it")
    return choices.index(text)


def _box(text: str, views: int, where: str) -> Box:
    try:
        view, *edges = (float(part) for part in text.replace(",", " ").split())
        left, top, right, bottom = edges
    except ValueError:
        raise DataError(f"{where}: box '{text}' is not VIEW LEFT TOP RIGHT BOTTOM; correct it") from None
    if view not in range(1, views + 1) or not (left < right and top < bottom):
        raise DataError(f"{where}: box '{text}' names no view of the case or is empty; correct it")
    return Box(int(view) - 1, left, top, right, bottom)
