"""What tests of `mskscreen explain score` share: how they run it on the folder that `judged` makes."""

import json

import numpy as np
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.evaluation.explain.cases import right_cases
from mskscreen.evaluation.explain.truth import read_truth
from mskscreen.predictions import Predictions
from mskscreen.saliency.maps import read_records

RUN = CliRunner()
SHAPE = (50, 40)


def box(place):
    """A square of ten pixels and its mask."""
    mask = np.zeros(SHAPE, bool)
    mask[place[0] : place[0] + 10, place[1] : place[1] + 10] = True
    return mask


def run(folder, *more):
    chosen = ["explain", "score", folder / "p.json", folder / "maps", "--truth", folder / "truth.csv", *more]
    return RUN.invoke(app, [*map(str, chosen), "--format", "json", "--resamples", "200"])


def score(folder, *more, part="all"):
    found = run(folder, *more)
    assert found.exit_code == 0, found.output
    return {row["method"]: row for row in json.loads(found.stdout) if row["part"] == part}


def value(row, measure):
    return row["measures"][measure]["value"]


def change(folder, method, **fields):
    """Write the records of one method again with other fields; a field may be a function of the record."""
    for path in sorted((folder / "maps").glob(f"*.{method}.map.json")):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {k: v(record) if callable(v) else v for k, v in fields.items()}))


def joined(folder):
    predictions, truths = Predictions.read(folder / "p.json"), read_truth(folder / "truth.csv")
    return right_cases(predictions, read_records(folder / "maps"), truths)


def development(folder):
    """Half of the images and their maps, taken out of those that are judged."""
    (folder / "dev").mkdir()
    for path in sorted((folder / "maps").glob("1?.*")):
        path.rename(folder / "dev" / path.name)
    return folder / "dev"
