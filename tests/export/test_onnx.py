"""What is exported is what was trained: on both engines, on every output, in one file with its contract."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from calibrated import LITE, SIZES, calibrated, contract_of
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import Novelty
from mskscreen.errors import ModelError
from mskscreen.export import check_parity, export_onnx
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.engines import open_engine
from mskscreen.networks.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small network with all four outputs, its contract and its file."""
    network = calibrated(LITE)
    network.attach_novelty(torch.rand(1280), torch.eye(1280)[:16], torch.ones(16), 2.0)
    contract = contract_of(LITE, novelty=Novelty("mahalanobis", threshold=30.0, quantile=0.99))
    path = tmp_path_factory.mktemp("export") / "lite.onnx"
    return network, export_onnx(network, contract, path), path


@pytest.mark.parametrize("architecture", [name for name in SIZES if name != LITE])
def test_both_engines_give_all_outputs_of_the_six_and_the_map_costs_no_weights(architecture, tmp_path):
    network, path = calibrated(architecture), tmp_path / "model.onnx"
    # Both engines are compared with torch before the file gets its name.
    contract = export_onnx(network, contract_of(architecture), path)
    assert read_contract(path) == contract
    model = onnx.load(path)
    path.unlink()
    assert [output.name for output in model.graph.output] == ["pred1", "pred2", "map"]
    uses = Counter(name for node in model.graph.node for name in node.input)
    reused = ["shared.weight"] + (["pool.first.weight", "pool.second.weight"] if "vgg" in architecture else [])
    assert [uses[name] for name in reused] == [2] * len(reused)
    # Nothing beside the weights: no second copy in another layout.
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert stored < 1.005 * sum(tensor.numel() for tensor in network.state_dict().values())


def test_file_grows_by_less_than_a_hundredth_for_the_map(tmp_path):
    network = calibrated("resnet18")
    sizes = []
    for names in (["pred1", "pred2", "map"], ["pred1", "pred2"]):
        selected = Selected(network, len(names)).eval()
        image = torch.zeros(2, 1, 96, 96)
        program = torch.onnx.export(selected, (image,), dynamo=True, output_names=names, verbose=False)
        program.save(tmp_path / "model.onnx")
        sizes.append((tmp_path / "model.onnx").stat().st_size)
    assert sizes[1] < sizes[0] <= 1.01 * sizes[1]


class Selected(torch.nn.Module):
    """The first outputs of a network."""

    def __init__(self, network, count):
        super().__init__()
        self.network, self.count = network, count

    def forward(self, image):
        return self.network(image)[: self.count]


def test_four_outputs_agree_on_both_engines_at_both_batches(exported):
    network, contract, path = exported
    differences = check_parity(path, network, contract.input_size)
    engines = ("openvino", "onnxruntime")
    assert set(differences) == {f"{e}/{o}" for e in engines for o in ("pred1", "pred2", "map", "novelty")}
    assert max(differences.values()) < 1e-4


def test_file_is_one_and_says_what_it_is(exported):
    network, contract, path = exported
    assert [file.name for file in path.parent.iterdir()] == ["lite.onnx"]
    assert read_contract(path) == contract
    assert (contract.map.method, contract.map.stride) == ("hirescam", 16)
    engine = open_engine(path, "onnxruntime", "f32")
    image = np.random.default_rng(0).random((1, 1, 96, 96), np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image))
    for name, tensor in zip(network.output_names, expected, strict=True):
        np.testing.assert_allclose(engine.run(image)[name], tensor, rtol=1e-3, atol=1e-4)


def test_file_tells_nothing_of_the_machine_that_wrote_it(exported):
    _, _, path = exported
    found = path.read_bytes()
    for trace in (b"stack_trace", b"site-packages", b'File "', str(Path(__file__).parent).encode()):
        assert trace not in found


def test_batch_norms_are_folded_into_their_convolutions(exported):
    model = onnx.load(exported[2])
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_a_changed_weight_is_noticed(exported, tmp_path):
    network, contract, path = exported
    for name, output in (("joint.bias", "pred2"), ("novelty.mean", "novelty")):
        model = onnx.load(path)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 0.5, name))
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(ModelError, match=rf"changed\.onnx.*{output}"):
            check_parity(tmp_path / "changed.onnx", network, contract.input_size)


def test_a_truncated_file_is_refused(exported, tmp_path):
    network, contract, path = exported
    (tmp_path / "short.onnx").write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(ModelError, match=r"short\.onnx.*cannot run"):
        check_parity(tmp_path / "short.onnx", network, contract.input_size)


def test_a_network_whose_scores_are_not_numbers_leaves_no_file(tmp_path):
    network = calibrated("resnet18")
    with torch.no_grad():
        network.shared.weight[0, 0] = float("nan")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier export")
    with pytest.raises(ModelError, match="not exported"):
        export_onnx(network, contract_of("resnet18"), path)
    assert path.read_bytes() == b"an earlier export"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_contract_and_network_must_agree(exported, tmp_path):
    network, _, _ = exported
    with pytest.raises(ModelError, match="architecture"):
        export_onnx(network, contract_of("resnet18"), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="novelty"):
        export_onnx(network, contract_of(LITE), tmp_path / "model.onnx")


def test_verb_exports_a_checkpoint(tmp_path):
    network, contract, checkpoint = (
        calibrated("resnet18"),
        contract_of("resnet18"),
        tmp_path / "weights.safetensors",
    )
    save_checkpoint(network, contract, checkpoint)
    result = CliRunner().invoke(app, ["export", str(checkpoint)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(tmp_path / "weights.onnx")
    assert check_parity(tmp_path / "weights.onnx", network.train(), contract.input_size)
    assert network.training
