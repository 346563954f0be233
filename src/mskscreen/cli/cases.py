"""What the verbs that judge a table share: tables, truth and model from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mskscreen.cli import common

if TYPE_CHECKING:
    from mskscreen.evaluation.cases import Joined
    from mskscreen.evaluation.table import Table
    from mskscreen.inference import Screener
    from mskscreen.predictions import Predictions


def read_any(path: Path) -> Table:
    """A predictions table or a submission of MURA, which is told by its first line."""
    from mskscreen.evaluation.codalab import is_submission, read_submission
    from mskscreen.evaluation.table import read_table

    if path.suffix.lower() in ("", ".csv", ".txt") and is_submission(path):
        return read_submission(path)
    with common.needs("data"):
        return read_table(path)


def join_labels(table: Table, labels: Path | None, column: str) -> Joined:
    """The table with its truth; without labels that of MURA's folder names."""
    from mskscreen.evaluation.cases import join
    from mskscreen.evaluation.labels import labels_from_paths, read_labels

    if labels is None:
        return join(table, labels_from_paths(table))
    with common.needs("data"):
        return join(table, read_labels(labels, label_column=column))


def screener_of(model: str, table: Table | Predictions, file: Path) -> Screener:
    """The model that made a table; raises DataError where another one did."""
    from mskscreen.errors import DataError
    from mskscreen.inference import Screener

    screener = Screener.load(model)
    digest = screener.engine.contract.digest
    if table.model.get("contract", digest) != digest:
        raise DataError(f"{file}: made by another model than '{model}'; name the model that made it")
    return screener


def operating_rules(sensitivity: float, specificity: float, miss_cost: float | None) -> dict[str, Any]:
    """The three points of every contract, and `cost` where a cost is given."""
    from mskscreen.evaluation.operating import Rule

    rules = {
        "balanced": Rule("youden"),
        "sensitive": Rule("sensitivity", sensitivity),
        "specific": Rule("specificity", specificity),
    }
    return rules | ({"cost": Rule("cost", miss_cost)} if miss_cost is not None else {})
