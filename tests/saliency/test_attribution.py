"""Integrated gradients of a checkpoint."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mskscreen.contract import ModelContract
from mskscreen.errors import ModelError
from mskscreen.evaluation.explain.explainer import Explainer, Settings
from mskscreen.evaluation.explain.files import Request, explain_files
from mskscreen.export import export_onnx
from mskscreen.inference import Screener
from mskscreen.inference.engines import open_engine
from mskscreen.networks import checkpoint as checkpoints
from mskscreen.networks.checkpoint import load_checkpoint, save_checkpoint
from mskscreen.saliency.target import Target

sys.path.insert(0, str(Path(__file__).parents[1] / "networks"))
from calibrated import calibrated

SIDE = 64


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    network = calibrated("resnet18")
    string = f"decode|grayscale|window(auto)|resize({SIDE},{SIDE},bilinear,antialias)|unit"
    contract = ModelContract("r", "resnet18", string, (SIDE, SIDE))
    contract = export_onnx(network, contract, folder / "r.onnx")
    save_checkpoint(network, contract, folder / "r.safetensors")
    with torch.no_grad():
        network.abnormality.bias[1] += 1
    save_checkpoint(network, contract, folder / "other.safetensors")
    return folder


@pytest.mark.parametrize("label", ["abnormal", "hand"])
def test_contributions_add_up_to_what_the_image_changes(resnet, label):
    explainer = Explainer(open_engine(resnet / "r.onnx", threads=1), Settings(steps=64), resnet / "r.safetensors")
    image = np.random.default_rng(0).random((1, SIDE, SIDE), np.float32)
    target = Target.parse(label)
    found = explainer(image, "integrated-gradients", target)
    score = explainer.score(target)(np.stack([image, np.zeros_like(image)]))
    assert found.values.shape == (SIDE, SIDE)
    assert found.values.sum() == pytest.approx(score[0] - score[1], rel=0.25, abs=0.02)
    assert np.isfinite(found.values).all()


def test_the_tail_of_a_network_with_average_pooling_is_read_from_its_graph(resnet):
    engine = open_engine(resnet / "r.onnx", precision="f32", threads=1)
    image = np.random.default_rng(1).random((1, SIDE, SIDE), np.float32)
    tail = Explainer(engine).tail
    features = tail.features(image)
    gradient = tail.gradient(features, "pred1", np.array([-1.0, 1.0]))
    expected = engine.run(image[None])["map"][0, 0]
    np.testing.assert_allclose((features * gradient).sum(0), expected, atol=1e-4 * np.abs(expected).max())


def test_a_checkpoint_of_another_model_and_none_at_all_are_refused(resnet, bright_model):
    image = np.zeros((1, SIDE, SIDE), np.float32)
    engine = open_engine(bright_model(), threads=1)
    target = Target.parse("abnormal")
    for checkpoint, message in ((None, "--checkpoint"), (resnet / "r.safetensors", "not what model")):
        with pytest.raises(ModelError, match=message):
            Explainer(engine, checkpoint=checkpoint)(image, "integrated-gradients", target)
        # Before an image is scored, which may cost thousands of passes of other methods.
        with pytest.raises(ModelError, match=message):
            Explainer(engine, checkpoint=checkpoint).require("integrated-gradients", target)


def test_a_checkpoint_of_other_weights_is_refused_and_one_is_hashed_once(resnet, monkeypatch):
    image = np.random.default_rng(0).random((1, SIDE, SIDE), np.float32)
    engine = open_engine(resnet / "r.onnx", threads=1)
    target = Target.parse("abnormal")
    with pytest.raises(ModelError, match="its weights are others"):
        Explainer(engine, checkpoint=resnet / "other.safetensors")(image, "integrated-gradients", target)
    hashed = []
    monkeypatch.setattr(
        "mskscreen.evaluation.explain.explainer.sha256_of", lambda path: hashed.append(path) or "x"
    )
    explainer = Explainer(engine, checkpoint=resnet / "r.safetensors")
    assert {explainer.checkpoint_digest, explainer.checkpoint_digest} == {"x"}
    assert len(hashed) == 1


def test_a_finished_run_does_without_the_network_of_the_checkpoint(resnet, write_png, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(checkpoints, "load_checkpoint", lambda path: loaded.append(path) or load_checkpoint(path))
    screener = Screener.load(resnet / "r.onnx", precision="f32", threads=1)
    request = Request(("integrated-gradients",), normal=True)
    files = [write_png(tmp_path / f"{k}.png", k) for k in range(2)]
    for times in (1, 0):
        explainer = Explainer(screener.engine, checkpoint=resnet / "r.safetensors")
        made = list(explain_files(screener, explainer, request, files, tmp_path / "out"))
        assert [each.found for each in made] == [not times] * 2
        assert len(loaded) == times
        loaded.clear()
