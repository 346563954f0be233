"""The predictions table in memory, and the threshold its calls were made at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mskscreen.errors import DataError
from mskscreen.predictions.formats import described, read_images, render, write_table
from mskscreen.predictions.rows import Prediction
from mskscreen.predictions.study import StudyPrediction, studies


@dataclass(frozen=True)
class Predictions:
    """A predictions table: image rows, what is said of the model that made them, and the threshold in [0, 1].

    Iterating over it and its length are of the image rows; `docs/predictions.md` tells every column.
    """

    images: tuple[Prediction, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    threshold: float = 0.5

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def studies(self) -> list[StudyPrediction]:
        """Study rows derived from the image rows, in order of first appearance, called at `threshold`."""
        return studies(self.images, self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """`{"model", "images", "studies"}`, ready for JSON."""
        return {
            "model": described(self.model, self.threshold),
            "images": [dataclasses.asdict(row) for row in self.images],
            "studies": [dataclasses.asdict(row) for row in self.studies],
        }

    def dumps(self, form: str) -> str:
        """The table as text: `json` (model, images, studies), `jsonl` or `csv` (image rows).

        Raises DataError for another form.
        """
        return "".join(render(form, self.images, self.model, self.threshold))

    def write(self, path: Path) -> None:
        """Write the table whole or not at all; the suffix (json, jsonl, csv, parquet) is the format.

        Raises DataError for another suffix.
        """
        write_table(path, self.images, self.model, self.threshold)

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Read a table written as json, jsonl, csv or parquet.

        Of the model, csv and jsonl keep the name, the digest of the contract and the threshold. A table without a
        threshold is called at 0.5. Raises DataError that names the file and the field, also where the threshold
        contradicts the calls of the rows.
        """
        images, model = read_images(path)
        highest = max((p for p, abnormal in _calls(images) if not abnormal), default=-math.inf)
        lowest = min((p for p, abnormal in _calls(images) if abnormal), default=math.inf)
        return cls(images, model, threshold_of(path, model, highest, lowest))


def threshold_of(path: Path, model: Mapping[str, Any], highest_normal: float, lowest_abnormal: float) -> float:
    """The threshold of a table, 0.5 where `model` does not say it.

    Raises DataError where it is no probability, or does not lie between the highest probability of an image called
    normal and the lowest of one called abnormal.
    """
    given = model.get("threshold")
    found = math.nan
    with suppress(TypeError, ValueError, OverflowError):
        found = 0.5 if given is None else float(given)
    if not 0 <= found <= 1:
        raise DataError(f"{path}: threshold '{given}' is not a number from 0 to 1; run predict again")
    if highest_normal < found <= lowest_abnormal:
        return found
    said = "holds no threshold, and 0.5 contradicts" if given is None else f"threshold {found:g} contradicts"
    call = f"{lowest_abnormal:.4g} abnormal" if lowest_abnormal < found else f"{highest_normal:.4g} normal"
    raise DataError(
        f"{path}: {said} the column 'abnormal', which calls {call}; run predict again, or give the threshold of "
        "these calls in a column 'threshold'"
    )


def _calls(images: Iterable[Prediction]) -> Iterator[tuple[float, bool]]:
    """Probability and call of the images that have both."""
    return ((i.p_abnormal, i.abnormal) for i in images if i.p_abnormal is not None and i.abnormal is not None)
