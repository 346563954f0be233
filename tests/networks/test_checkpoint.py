"""A checkpoint gives back the same network and contract, and nothing else is accepted as one."""

import dataclasses

import pytest
import torch
from calibrated import LITE, calibrated, contract_of
from safetensors.torch import load_file, save_file

from mskscreen.contract import METADATA_KEY
from mskscreen.errors import ContractError, ModelError
from mskscreen.networks.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("novelty", [False, True])
def test_round_trip_gives_equal_outputs(novelty, tmp_path):
    network, contract = calibrated(LITE), contract_of(LITE)
    if novelty:
        network.attach_novelty(torch.rand(1280), torch.eye(1280)[:5], torch.ones(5), 2.0)
    path = tmp_path / "weights.safetensors"
    save_checkpoint(network, contract, path)
    loaded, read = load_checkpoint(path)
    assert read == contract
    assert not loaded.training
    image = torch.rand(2, 1, 96, 96)
    with torch.no_grad():
        for one, other in zip(network(image), loaded(image), strict=True):
            assert torch.equal(one, other)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_others_may_read_a_checkpoint_as_they_may_any_new_file(tmp_path):
    save_checkpoint(calibrated(LITE), contract_of(LITE), tmp_path / "weights.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "weights.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def _saved(path, change):
    tensors = calibrated("resnet18").state_dict()
    metadata = {METADATA_KEY: contract_of("resnet18").to_json()}
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def of_architecture(name):
    return {METADATA_KEY: dataclasses.replace(contract_of("resnet18"), architecture=name).to_json()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t, m: t.pop("stem.weight"), "stem.weight"),
        (lambda t, m: t.update(extra=torch.zeros(1)), "extra"),
        (lambda t, m: t.update({"x" * 10_000: torch.zeros(1)}), "'xxx"),
        (lambda t, m: m.update(of_architecture("x" * 10_000)), "architecture 'xxx"),
        (lambda t, m: t.update({"joint.bias": torch.zeros(8)}), "joint.bias"),
        (lambda t, m: t.update({"joint.bias": torch.zeros(7, dtype=torch.float16)}), "float16"),
        (lambda t, m: t.update({"novelty.mean": torch.zeros(512)}), "novelty"),
        (lambda t, m: t["joint.bias"].fill_(torch.nan), "'joint.bias' is not finite"),
        (lambda t, m: m.clear(), "no contract"),
        # Larger by far than the file: must be refused before memory is asked for.
        (lambda t, m: m.update(of_architecture("vgg19_bn")), "vgg19_bn"),
    ],
)
def test_a_file_that_is_not_its_contract_is_refused(change, named, tmp_path):
    path = tmp_path / "weights.safetensors"
    _saved(path, change)
    with pytest.raises(ModelError, match=f"^checkpoint '{path}'.*{named}") as caught:
        load_checkpoint(path)
    assert len(str(caught.value)) < 500


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    _saved(path, lambda t, m: m.update({METADATA_KEY: "{}"}))
    with pytest.raises(ContractError, match=f"^checkpoint '{path}': "):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_contract_of_another_network_is_not_saved(tmp_path):
    with pytest.raises(ModelError, match="architecture"):
        save_checkpoint(calibrated("resnet18"), contract_of(LITE), tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    network = calibrated("resnet18")
    network.stem.weight.data[0, 0, 1, 1] = torch.inf
    with pytest.raises(ModelError, match=r"tensor 'stem\.weight' is not finite"):
        save_checkpoint(network, contract_of("resnet18"), tmp_path / "weights.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_saved_tensors_are_the_state_dict(tmp_path):
    network = calibrated("resnet18")
    save_checkpoint(network, contract_of("resnet18"), tmp_path / "weights.safetensors")
    assert set(load_file(tmp_path / "weights.safetensors")) == set(network.state_dict())
