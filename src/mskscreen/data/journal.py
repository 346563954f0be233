"""What a long job has finished so far, kept so that a killed run can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines: first the identity of the job, then one record a finished block.

    A journal of another job, or of none, is begun anew; a line that was cut off by a kill is dropped.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        header = (json.dumps({"job": key}) + "\n").encode()
        kept = 0
        if path.is_file():
            data = path.read_bytes()
            if data.startswith(header):
                kept = len(header) + self._read(data[len(header) :])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("r+b" if kept else "wb")
        self._stream.truncate(kept)
        self._stream.seek(kept)
        if not kept:
            self._write(header)

    def _read(self, data: bytes) -> int:
        """Read whole lines; returns how many bytes they take."""
        taken = 0
        for line in data.splitlines(keepends=True):
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(record, dict):
                break
            self.records.append(record)
            taken += len(line)
        return taken

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it survives a kill as soon as this returns."""
        self.records.append(record)
        self._write((json.dumps(record, separators=(",", ":")) + "\n").encode())

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file and keep it."""
        self._stream.close()
