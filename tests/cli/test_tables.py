"""A table for a reader says nothing that its numbers do not."""

import dataclasses
import math
import re

import pytest
from typer.testing import CliRunner

from mskscreen.cli.common import plain
from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY
from mskscreen.inference.catalogue import model_path, read_contract
from mskscreen.inference.onnx_file import write_metadata


@pytest.mark.parametrize("value", [0.0001, 3e-4, 0.0015, 0.0125, 1e-12, 0.05, 0.9999, -0.0002, 12.5, 0.0])
def test_a_small_number_is_not_shown_as_nothing(value):
    assert float(plain(value)) == pytest.approx(value, rel=0.01)


def test_numbers_of_usual_size_have_three_decimals():
    assert [plain(value) for value in (0.5, 0.61149, 127.3154, 1.0)] == ["0.500", "0.611", "127.315", "1.000"]
    assert [plain(value) for value in (math.nan, math.inf, None)] == ["nan", "inf", "-"]


def test_contracts_that_differ_do_not_look_alike(tmp_path):
    original = model_path("demo")
    contract = read_contract(original)
    paths = [tmp_path / "one.onnx", tmp_path / "other.onnx"]
    for path, balanced in zip(paths, (0.48213001, 0.48213002), strict=True):
        points = {**contract.operating_points, "balanced": balanced}
        changed = dataclasses.replace(contract, operating_points=points)
        write_metadata(original, METADATA_KEY, changed.to_json(), path)
    done = CliRunner().invoke(app, ["model", "compare", *map(str, paths)])
    assert done.exit_code == 0
    assert re.search(r"operating_points\.balanced +0\.48213001 +0\.48213002", done.stdout)
