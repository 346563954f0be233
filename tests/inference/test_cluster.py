"""Batch prediction on a Ray cluster."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mskscreen import Screener
from mskscreen.errors import ModelError, MskscreenError
from mskscreen.inference.cluster import _screen, stream_on_ray
from mskscreen.pixels import Limits
from mskscreen.predictions import FLAG_UNAPPROVED, Predictions, row_of

pytest.importorskip("ray")
IMAGES = 240


def test_a_node_forces_the_precision_that_was_forced_here_and_no_other(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, write_png: Callable
) -> None:
    model = tiny_model(tmp_path / "tiny.onnx", contract=tiny_contract(precision="int8"))
    image = write_png(tmp_path / "a.png")
    screener = Screener.load(model, precision="int8", threads=1, unapproved=True)
    node = partial(
        _screen,
        {"file": [os.fsencode(image)]},
        model=str(model),
        about=screener.describe(),
        study_by="auto",
        limits=Limits(),
        folder=str(Path.cwd()),
    )
    (row,) = node(unapproved=True)["row"]
    assert row_of(json.loads(row)) == screener.predict(image).images[0]
    assert FLAG_UNAPPROVED in json.loads(row)["flags"]
    with pytest.raises(ModelError, match="not gated"):
        node(unapproved=False)


def test_an_address_that_is_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(MskscreenError, match="the Ray cluster nonsense cannot be used"):
        next(stream_on_ray([Path("a.png")], "demo", {}))


def test_a_cluster_that_loses_a_node_gives_the_same_table(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    """The node is killed once its share is under way: what it held is done again, and the order stays."""
    # Its precision has passed no gate here, so it must be forced on every node.
    model, folder = (
        tiny_model(tmp_path / "tiny.onnx", contract=tiny_contract(precision="int8")),
        tmp_path / "images",
    )
    folder.mkdir()
    ramp = np.add.outer(np.arange(1000), np.arange(1000))
    for i in range(5):
        Image.fromarray((ramp % (101 + 30 * i)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    for i in range(IMAGES):
        (folder / f"{i}.png").hardlink_to(tmp_path / f"{i % 5}.png")
    (folder / "7.png").unlink()
    (folder / "7.png").write_bytes(b"no image")
    output = tmp_path / "table.json"
    script = Path(__file__).with_name("ray_cluster.py")
    done = subprocess.run(
        [sys.executable, script, model, folder, output], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 3, done.stderr[-3000:]
    assert "Execution plan of Dataset" not in done.stderr  # Ray Data says where it logs, and more
    killed = re.search(r"killed after \[(\d+)\] rows, 1 nodes alive", done.stdout)
    assert killed is not None, done.stdout
    assert int(killed[1]) < IMAGES
    screener = Screener.load(model, precision="int8", threads=1, unapproved=True)
    table, expected = Predictions.read(output), screener.predict(folder)
    assert table.images == expected.images
    assert all(FLAG_UNAPPROVED in row.flags for row in table)
    assert {key: value for key, value in table.model.items() if key in expected.model} == expected.model
    assert not output.with_name("table.json.journal").exists()
