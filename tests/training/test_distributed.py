"""Two processes that train together are one run."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))

from small_mura import TINY, decode, small_mura

from mskscreen.inference.engines import cores
from mskscreen.networks.checkpoint import load_checkpoint
from mskscreen.predictions import Predictions
from mskscreen.training.material import gather, read_data
from mskscreen.training.run import train

pytestmark = pytest.mark.skipif(cores() < 2, reason="needs two processor cores")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_mura(tmp_path_factory.mktemp("mura"))


@pytest.fixture(scope="module")
def cache(data, tmp_path_factory):
    return decode(data, tmp_path_factory.mktemp("cache"))


def in_two_processes(data, out, cache, *how):
    script = Path(__file__).parent / "two_processes.py"
    subprocess.run([sys.executable, str(script), *map(str, (data, out, cache, *how))], check=True, timeout=600)


def test_two_processes_learn_the_same_weights_and_write_one_run(tmp_path, data, cache):
    out = tmp_path / "run"
    in_two_processes(data, out, cache)

    one, other = (load_file(tmp_path / f"process-{rank}.safetensors") for rank in (0, 1))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert len(list(csv.DictReader((out / "metrics.csv").open()))) == 2
    cost = json.loads((out / "done.json").read_text())["cost"]
    assert (cost["processes"], cost["epochs"]) == (2, 2)
    manifest = read_data(data, TINY)
    fold = [image for image, fold in zip(manifest["image"], manifest["fold"], strict=True) if fold == 0]
    table = Predictions.read(out / "development.parquet")
    assert [row.file for row in table] == fold

    network, _ = load_checkpoint(out / "best.safetensors")
    development = gather(manifest, TINY, cache).development
    with torch.no_grad():
        p = network(torch.stack([image["image"] for image in development]))[0].softmax(1)[:, 1]
    assert [row.p_abnormal for row in table] == pytest.approx(p.tolist(), abs=1e-5)


def test_processes_that_share_no_folder_do_not_go_on_from_different_states(tmp_path, data, cache):
    protocol, steps = TINY.replace(epochs=2), []
    out = tmp_path / "run" / "0"
    train(data, protocol, out, cache=cache, report=steps.append, stop=lambda: bool(steps))
    with safe_open(out / "state.safetensors", framework="pt") as file:
        key, text = file.metadata().popitem()
    of_two = json.dumps(json.loads(text) | {"processes": 2})
    save_file(load_file(out / "state.safetensors"), out / "state.safetensors", {key: of_two})

    in_two_processes(data, tmp_path / "run", cache, "divided")
    for rank in (0, 1):
        assert "a folder that they share" in (tmp_path / f"process-{rank}.txt").read_text()


def test_a_loss_that_is_not_finite_in_one_process_ends_both_with_the_same_sentence(tmp_path, data, cache):
    in_two_processes(data, tmp_path / "run", cache, "diverging")
    one, other = ((tmp_path / f"process-{rank}.txt").read_text() for rank in (0, 1))
    assert one == other
    assert "the loss is nan at epoch 1, step 2; what was saved before is whole" in one
