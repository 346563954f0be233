"""Two processes that train together are one run."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent))

from small_mura import TINY, decode, small_mura

from mskscreen.inference.engines import cores
from mskscreen.predictions import Predictions
from mskscreen.training.material import read_data


@pytest.mark.skipif(cores() < 2, reason="needs two processor cores")
def test_two_processes_learn_the_same_weights_and_write_one_run(tmp_path):
    data, out = small_mura(tmp_path / "data"), tmp_path / "run"
    (tmp_path / "cache").mkdir()
    decode(data, tmp_path / "cache")
    script = Path(__file__).parent / "two_processes.py"
    subprocess.run([sys.executable, str(script), str(data), str(out), str(tmp_path / "cache")], check=True)

    one, other = (load_file(tmp_path / f"process-{rank}.safetensors") for rank in (0, 1))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    assert len(list(csv.DictReader((out / "metrics.csv").open()))) == 1
    cost = json.loads((out / "done.json").read_text())["cost"]
    assert (cost["processes"], cost["epochs"]) == (2, 1)
    manifest = read_data(data, TINY)
    fold = [image for image, fold in zip(manifest["image"], manifest["fold"], strict=True) if fold == 0]
    assert [row.file for row in Predictions.read(out / "development.parquet")] == fold
