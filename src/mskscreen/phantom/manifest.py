"""The manifest of a phantom data set: one row an image, with its truth, and what can be summed up from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mskscreen.errors import DataError

FILE = "manifest.parquet"


@dataclass(frozen=True)
class Row:
    """One image. Paths are relative to the data set's folder; None where there is no such file.

    `views` are the names of the projections on the image, joined by " + "; `label` is the study's, 1 for
    abnormal; `kind`, `subkind` and `bone` name the abnormality and `parameters` holds its severity (JSON);
    `variants` are the harmless peculiarities drawn for the study, joined by ", "; `anatomy` is the patient's build
    and seed (JSON); `visibility` is Rose's k in this image, None in a normal study; `occult` marks an
    abnormality with k below 5; `inverted` an image stored with bone dark; `seed`, with joint and patient's
    seed, remakes the study. `kilovolts` is the tube voltage where all exposures share one, `style` the family of
    display processing, `film` marks a scan of film, `exposures` is what `Finished` says of each exposure (JSON):
    manifests from before these four were recorded lack them.
    """

    image: str
    mask: str | None
    twin: str | None
    dicom: str | None
    study: str
    patient: str
    joint: str
    views: str
    split: str
    label: int
    kind: str | None
    subkind: str | None
    bone: str | None
    parameters: str
    variants: str
    laterality: str
    age_group: str
    anatomy: str
    visibility: float | None
    occult: bool
    inverted: bool
    rows: int
    columns: int
    seed: int
    kilovolts: float | None = None
    style: str | None = None
    film: bool | None = None
    exposures: str = "[]"

    @property
    def severity(self) -> dict[str, Any]:
        """The parameters of the abnormality."""
        return dict(json.loads(self.parameters))


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema([(field.name, types[str(field.type).split(" ")[0]]) for field in fields(Row)])
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    pq.write_table(table, path, compression="zstd")


def read_manifest(folder: Path) -> list[Row]:
    """The rows of the data set in `folder`.

    Raises DataError where there is no finished phantom data set.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [Row(**row) for row in pq.read_table(folder / FILE).to_pylist()]
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no finished phantom data set ({FILE} is missing); run: mskscreen phantom make"
        ) from None
    except (pa.ArrowException, TypeError) as error:
        raise DataError(f"{folder / FILE} is not a manifest that this version can read ({error})") from None


def summary(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One line a kind of abnormality, then all of them, then the normal studies.

    `median_k` is over visible images, `occult` the share of images in which the abnormality cannot be seen,
    `displaced` the share of the studies that hold a fracture displaced by more than half the bone's width.
    """
    rows = list(rows)
    abnormal = [row for row in rows if row.label]
    kinds = sorted({row.kind or "" for row in abnormal})
    groups = [(kind, [row for row in abnormal if row.kind == kind]) for kind in kinds]
    groups += [("abnormal", abnormal), ("normal", [row for row in rows if not row.label])]
    return [{"kind": name} | _line(group) for name, group in groups]


def _line(group: list[Row]) -> dict[str, Any]:
    visible = [row.visibility for row in group if row.visibility is not None and not row.occult]
    shifts = {row.study: row.severity.get("displacement_widths", 0.0) for row in group if row.kind == "fracture"}
    return {
        "studies": len({row.study for row in group}),
        "images": len(group),
        "median_k": round(statistics.median(visible), 1) if visible else None,
        "occult": round(sum(row.occult for row in group) / len(group), 3) if group else None,
        "displaced": round(sum(shift > 0.5 for shift in shifts.values()) / len(shifts), 3) if shifts else None,
    }
