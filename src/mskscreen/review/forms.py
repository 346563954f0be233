"""The forms of the readers: one CSV a reader and phase, one row a case in the order in which it is read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mskscreen.errors import DataError
from mskscreen.review.protocol import AIDED, CALLS, CONFIDENCE, JUDGEMENTS, Key, View
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

    def near(self, x: npt.ArrayLike, y: npt.ArrayLike, reach: float) -> npt.NDArray[np.bool_]:
        """Whether points lie in it or within `reach` pixels of it."""
        x, y = np.asarray(x), np.asarray(y)
        aside = np.maximum(np.maximum(self.left - x, x - self.right), 0)
        above = np.maximum(np.maximum(self.top - y, y - self.bottom), 0)
        return np.asarray(aside**2 + above**2 <= reach**2)


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
    """The answers of all forms, files or folders of them; rows without a call, a judgement or a box are left out.

    Raises DataError that names the file and, for all that is wrong in it, the row and the field.
    """
    found: dict[tuple[str, str], Answer] = {}
    for path in (form for given in paths for form in _files(given)):
        wrong = []
        for line, row in _rows(path):
            try:
                answer = _answer(row, key)
            except _CellError as error:
                wrong.append(f"line {line}: {error}")
                continue
            if found.setdefault((answer.reader, answer.code), answer) != answer:
                wrong.append(
                    f"line {line}: reader '{answer.reader}' answers case {answer.code} twice and differently "
                    "(keep the first answer)"
                )
        if wrong:
            raise DataError(f"{path}: {'; '.join(wrong)}; correct the form and score again")
    answers = [a for a in found.values() if (a.call, a.judgement) != (None, None) or a.boxes]
    if not answers:
        raise DataError("no form holds an answer; fill in the column 'call' of the forms")
    return answers


class _CellError(ValueError):
    """What is wrong in a row of a form."""


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    forms = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    if not forms:
        raise DataError(f"{path}: holds no CSV; name the folder of the forms, or the forms")
    return forms


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows that are not empty, by name of the column, each with its line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        # Spreadsheets of half of the world write ; between cells, and any may write tabs.
        first = text.partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
        head = [name.strip().lower() for name in next(reader, [])]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV in UTF-8 ({error}); save the form again as such") from error
    missing = next((name for name in ("reader", "case", "call") if name not in head), None)
    if missing:
        raise DataError(f"{path}: no column '{missing}'; use the form of the pack")
    twice = next((name for name in (*_FIXED, *_ANSWERS) if head.count(name) > 1), None)
    if twice:
        raise DataError(f"{path}: two columns are named '{twice}'; keep one, with several boxes in it parted by ;")
    return [(line, _by_column(head, row)) for line, row in rows if any(row)]


def _by_column(head: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """Cells by name of their column; those that stand in none are together under the empty name."""
    cells = list(zip_longest(head, row, fillvalue=""))
    return dict(cells) | {"": " ".join(cell for name, cell in cells if cell and not name)}


def _answer(row: Mapping[str, str], key: Key) -> Answer:
    if row[""]:
        raise _CellError(
            f"'{row['']}' stands in no column: several boxes are one cell, parted by ;, and remarks need a "
            "column of their own"
        )
    reader, code = row["reader"].lower(), row["case"].upper()
    showing = key.showings.get(code)
    if showing is None or row.get("phase", showing.phase).lower() != showing.phase:
        raise _CellError(f"case '{row['case']}' is not in this phase of the pack")
    if reader not in key.protocol["readers"]:
        raise _CellError(f"reader '{row['reader']}' is not in the protocol")
    views = key.cases[showing.case].views
    return Answer(
        reader,
        code,
        _choice(row, "call", CALLS),
        _choice(row, "confidence", CONFIDENCE),
        _choice(row, "map", JUDGEMENTS),
        tuple(_box(text, views) for text in row.get("box", "").split(";") if text.strip()),
    )


def _choice(row: Mapping[str, str], column: str, choices: Sequence[str]) -> int | None:
    # Spreadsheets write whole numbers as 4.0 or 4,0.
    text = re.sub(r"[.,]0+$", "", row.get(column, "").lower())
    if not text:
        return None
    if text not in choices:
        raise _CellError(f"{column} '{row[column]}' is none of {', '.join(choices)}")
    return choices.index(text)


def _box(text: str, views: Sequence[View]) -> Box:
    try:
        view, *edges = (float(part) for part in text.replace(",", " ").split())
        left, top, right, bottom = edges
    except ValueError:
        raise _CellError(f"box '{text}' is not VIEW LEFT TOP RIGHT BOTTOM") from None
    if view not in range(1, len(views) + 1) or not (left < right and top < bottom):
        raise _CellError(f"box '{text}' names no view of the case or is empty")
    seen = views[int(view) - 1]
    if min(left, top) < 0 or right > seen.columns or bottom > seen.rows:
        raise _CellError(f"box '{text}' leaves view {view:.0f} of {seen.columns} x {seen.rows} pixels")
    return Box(int(view) - 1, left, top, right, bottom)
