"""The result of an audit: flags and measures of every image, kept as one Parquet table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mskscreen.data.audit.measure import FLAGS
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError
from mskscreen.storage import replacing

MEANINGS = {name: flag.meaning for name, flag in FLAGS.items()} | {
    "exact-duplicate": "the same pixels as another image",
    "near-duplicate": "nearly the same image as another one: stored anew, resized or brightened",
    "duplicate-across-splits": "a duplicate of it lies in another split: what is learned would be tested",
    "duplicate-across-patients": "a duplicate of it belongs to another patient",
    "duplicate-labels-differ": "a duplicate of it has the other label",
    "both-labels": "the images of its study have both labels",
    "patient-across-splits": "its patient is in another split too",
    "rotated": "the model recognises the joint once the image is turned by a quarter or a half",
    "label-noise": "a cross-validated model contradicts the label of its study with confidence",
}
_METADATA = b"mskscreen.audit"


@dataclass
class Audit:
    """Measures and names of flags, one an image of the manifest, and further `columns` of the table."""

    manifest: Manifest
    measured: list[dict[str, Any]]
    flags: list[list[str]]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def flag(self, name: str, rows: Iterable[int]) -> None:
        """Raise a flag on some rows, once."""
        for row in rows:
            if name not in self.flags[row]:
                self.flags[row].append(name)

    @property
    def summary(self) -> list[dict[str, Any]]:
        """One row a flag that was raised: how many images, and what it means."""
        counts = Counter(name for names in self.flags for name in names)
        return [{"flag": n, "images": counts[n], "meaning": text} for n, text in MEANINGS.items() if counts[n]]

    def write(self, path: Path, key: str) -> None:
        """Write the table whole or not at all; `key` identifies what was audited and how."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        readable: dict[str, Any] = next(
            (item for item in self.measured if item["error"] is None), {"error": None, "modified": None}
        )
        columns = {
            "image": list(self.manifest["image"]),
            "flags": pa.array(self.flags, pa.list_(pa.string())),
            **{name: [item.get(name) for item in self.measured] for name in readable if name != "thumb"},
            **self.columns,
        }
        described = json.dumps({"audit": key, "summary": self.summary})
        with replacing(path) as partial:
            pq.write_table(pa.table(columns).replace_schema_metadata({_METADATA: described}), partial)


def read_audit(path: Path) -> tuple[dict[str, list[Any]], str, list[dict[str, Any]]]:
    """Columns, key and summary of an audit table.

    The columns are image, flags, the measures, groups of duplicates, and turn and label quality where they were
    asked for. Raises DataError where the file is not an audit table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
        described = json.loads((table.schema.metadata or {})[_METADATA])
        return table.to_pydict(), described["audit"], described["summary"]
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a whole audit; write one with: mskscreen data audit MANIFEST") from error
