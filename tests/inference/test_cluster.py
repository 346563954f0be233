"""Batch prediction on a Ray cluster."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mskscreen import Screener
from mskscreen.predictions import FLAG_UNAPPROVED, Predictions

pytest.importorskip("ray")
IMAGES = 240


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
    killed = re.search(r"killed after \[(\d+)\] rows, 1 nodes alive", done.stdout)
    assert killed is not None, done.stdout
    assert int(killed[1]) < IMAGES
    screener = Screener.load(model, precision="int8", threads=1, unapproved=True)
    table, expected = Predictions.read(output), screener.predict(folder)
    assert table.images == expected.images
    assert all(FLAG_UNAPPROVED in row.flags for row in table)
    assert {key: value for key, value in table.model.items() if key in expected.model} == expected.model
    assert not output.with_name("table.json.journal").exists()
