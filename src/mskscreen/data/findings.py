"""What a reader came upon while reading a data set: each with its file and line, none with a patient."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mskscreen.storage import write_text


class Finding(NamedTuple):
    """One thing that is not as it should be: `file` is the list that says it, `line` counts from 1.

    `refused` is set where a row was left out or a value became null because of it.
    """

    kind: str
    file: str
    line: int | None = None
    refused: bool = False

    @property
    def place(self) -> str:
        """`file:line`."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Findings:
    """A growing list of findings."""

    items: list[Finding] = field(default_factory=list)

    def add(self, kind: str, file: str, line: int | None = None, *, refused: bool = False) -> None:
        """Note one finding."""
        self.items.append(Finding(kind, file, line, refused))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def refused(self) -> int:
        """How many rows or values were refused."""
        return sum(item.refused for item in self.items)

    def write(self, path: Path) -> None:
        """Write every finding as a line of CSV: finding, file, line, refused."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("finding", "file", "line", "refused"))
        writer.writerows((item.kind, item.file, item.line, int(item.refused)) for item in self.items)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, stream.getvalue())

    def table(self, places: int = 3) -> list[dict[str, Any]]:
        """One row a kind: how often, and the first few places."""
        counts = Counter((item.kind, item.refused) for item in self.items)
        where: dict[tuple[str, bool], list[str]] = {}
        for item in self.items:
            first = where.setdefault((item.kind, item.refused), [])
            if len(first) < places:
                first.append(item.place)
        return [
            {"finding": kind, "count": count, "refused": refused, "first": where[kind, refused]}
            for (kind, refused), count in counts.most_common()
        ]
