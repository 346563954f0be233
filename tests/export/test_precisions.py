"""int8 and bf16 of a model: made, gated on both engines, recorded, and used only where they passed."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from precision_data import with_folds, write_plates
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY, Gate, ModelContract, gate_key
from mskscreen.errors import DataError, ModelError
from mskscreen.export import gate as gates
from mskscreen.export.onnx import complete
from mskscreen.export.precisions import Request, add_precisions
from mskscreen.export.quantise import Quantised
from mskscreen.inference import open_engine
from mskscreen.inference.backends import OpenVino
from mskscreen.inference.catalogue import read_contract
from mskscreen.inference.machine import machine_kind
from mskscreen.inference.onnx_file import write_metadata
from mskscreen.inference.verify import FAILED, verify

SIZE = 32
CONTRACT = ModelContract(
    "two layers",
    "none",
    f"decode|grayscale|window(auto)|resize({SIZE},{SIZE},bilinear,antialias)|unit",
    (SIZE, SIZE),
)


def write_model(path, outlier=1.0, contract=CONTRACT, edit=lambda model: None):
    """Two convolutions whose features separate the plates; with an `outlier` the second needs more than 8 bits.

    The first convolution gives one of its channels `outlier` times the range of the others, and the second takes
    as much away again: one scale for all channels then leaves the others next to nothing. `edit` may change the
    onnx model before it is written.
    """
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.3, (8, 1, 5, 5))
    first[0] = np.abs(first[0])
    second = rng.normal(0, 0.3, (8, 8, 3, 3))
    first[0] *= outlier
    second[:, 0] /= outlier
    weights = {
        "first": first,
        "second": second,
        "head1": np.stack([-np.ones(8), np.ones(8)], 1) * rng.random((8, 1)) * 3,
        "head2": rng.normal(0, 2, (8, 7)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], "first_conv", strides=[2, 2], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "second"], ["c"], "second_conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["active"], "relu2"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head1"], ["pred1"], "abnormality"),
        helper.make_node("Gemm", ["flat", "head2"], ["pred2"], "joint"),
    ]
    shapes = {"pred1": ["b", 2], "pred2": ["b", 7]}
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    edit(model)
    onnx.save(model, path)
    complete(path, contract)
    return path


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    return with_folds(write_plates(tmp_path_factory.mktemp("plates"), 200, views=1))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((8, 1, SIZE, SIZE), np.float32)


def test_weights_are_int8_a_channel_and_leave_one_bit_free(tmp_path, images):
    model = Quantised(write_model(tmp_path / "m.onnx"), images).model()
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = {node.output[0]: node for node in model.graph.node}
    for name in ("first_conv", "second_conv"):
        conv = next(node for node in model.graph.node if node.name == name)
        weight, scale, _ = (stored[tensor] for tensor in nodes[conv.input[1]].input)
        assert weight.dtype == np.int8
        assert np.abs(weight.astype(int)).max() <= 64
        assert scale.shape == (8,)
    assert not {"first", "second"} & stored.keys()
    assert {"head1", "head2"} <= stored.keys()


def test_layers_given_back_compute_as_before(tmp_path, images):
    path = write_model(tmp_path / "m.onnx")
    quantised = Quantised(path, images)
    assert quantised.layers == ["first_conv", "second_conv"]
    f32 = open_engine(path, "onnxruntime", "f32").run(images)

    def error(kept):
        onnx.save(quantised.model(kept), tmp_path / "q.onnx")
        found = open_engine(tmp_path / "q.onnx", "onnxruntime", "f32").run(images)
        return np.abs(found["pred2"] - f32["pred2"]).max()

    assert error(quantised.layers) < 1e-5 < error(["second_conv"]) < error([])


@pytest.mark.parametrize("last", ["", "Conv_0"])
def test_layers_without_names_are_told_apart(tmp_path, images, last):
    def rename(model):
        for node in model.graph.node:
            node.name = ""
        model.graph.node[-1].name = last

    named = Quantised(write_model(tmp_path / "named.onnx"), images)
    quantised = Quantised(write_model(tmp_path / "m.onnx", edit=rename), images)
    assert len(set(quantised.layers)) == 2

    def dequantised(model):
        return [node.op_type for node in model.graph.node].count("DequantizeLinear")

    one, other = (q.model(q.layers[:1]) for q in (named, quantised))
    assert 0 < dequantised(one) == dequantised(other) < dequantised(quantised.model())
    assert dequantised(named.model()) == dequantised(quantised.model())  # the heads stay f32
    kept = {tensor.name for tensor in quantised.model(quantised.layers).graph.initializer}
    assert {"first", "second", "head1", "head2"} <= kept
    assert sorted(quantised.ranking()) == sorted(quantised.layers)
    with pytest.raises(ModelError, match=r"m\.onnx: has no int8 layer first_conv"):
        quantised.model(["first_conv"])


def test_a_model_of_another_input_and_a_fixed_batch_becomes_int8(tmp_path, plates, images):
    """The last of the batches of 3 is not full."""

    def edit(model):
        model.graph.input[0].name = model.graph.node[0].input[0] = "input.1"
        for port in (*model.graph.input, *model.graph.output):
            port.type.tensor_type.shape.dim[0].dim_value = 3

    contract = dataclasses.replace(CONTRACT, batch=3)
    path, out = write_model(tmp_path / "f32.onnx", contract=contract, edit=edit), tmp_path / "m.onnx"
    assert sorted(Quantised(path, images).ranking()) == ["first_conv", "second_conv"]
    add_precisions(path, Request(["int8"], plates), out)
    f32, int8 = (open_engine(out, "onnxruntime", kind, unapproved=True).run(images) for kind in ("f32", "int8"))
    assert 0 < np.abs(int8["pred2"] - f32["pred2"]).max() < 0.1 * np.abs(f32["pred2"]).max()


def test_what_the_quantiser_cannot_do_is_an_error_of_the_model(tmp_path, images):
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be quantised"):
        Quantised(write_model(tmp_path / "m.onnx"), images[:, :, 1:])


def test_images_that_cannot_judge_are_refused_before_any_is_decoded(tmp_path):
    few = with_folds(write_plates(tmp_path, 100, views=1))
    plates = with_folds(write_plates(tmp_path, 208, views=1, name="more"))
    of_one_class = plates.replace({**plates.columns, "label": [1] * len(plates)})
    for picture in tmp_path.rglob("*.png"):
        picture.unlink()
    path, out = write_model(tmp_path / "f32.onnx"), tmp_path / "m.onnx"
    for gate, said in ((few, "at least 100 studies, found 52"), (of_one_class, "normal and abnormal studies")):
        with pytest.raises(DataError, match=said):
            add_precisions(path, Request(["int8"], plates, gate), out)
    assert not out.exists()


def test_a_precision_that_passes_is_recorded_used_and_whole(tmp_path, plates):
    path, out = write_model(tmp_path / "f32.onnx"), tmp_path / "m.onnx"
    contract, done = add_precisions(path, Request(["bf16", "int8"], plates, plates), out)
    assert done
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f32.onnx", "m.int8.onnx", "m.onnx"]
    keys = {gate_key(engine, "int8", machine_kind()) for engine in ("openvino", "onnxruntime")}
    if "bf16" in OpenVino.precisions():
        keys.add(gate_key("openvino", "bf16", machine_kind()))
    assert contract.approved.keys() == keys
    assert read_contract(out) == contract
    assert contract.variants["int8"].bytes == (tmp_path / "m.int8.onnx").stat().st_size
    recorded = contract.provenance.protocol["precisions"]["int8"]
    assert (recorded["layers"], recorded["layers_in_f32"], recorded["calibration_images"]) == (2, [], 100)
    for file in (out, tmp_path / "m.int8.onnx"):
        assert [check for check in verify(file) if check.outcome == FAILED] == []
    for engine in ("openvino", "onnxruntime"):
        gate = contract.gate(engine, "int8", machine_kind())
        assert gate.passed
        assert gates.worst(gate.measures) <= 1
        assert open_engine(out, engine, "int8").path.name == "m.int8.onnx"


def test_a_finished_export_does_nothing_and_another_request_starts_anew(tmp_path, plates):
    path, out = write_model(tmp_path / "f32.onnx"), tmp_path / "m.onnx"
    request = Request(["int8"], plates, plates)
    add_precisions(path, request, out)
    before = out.stat().st_mtime_ns, (tmp_path / "m.int8.onnx").stat().st_mtime_ns
    assert add_precisions(path, request, out)[1] is False
    assert (out.stat().st_mtime_ns, (tmp_path / "m.int8.onnx").stat().st_mtime_ns) == before
    (tmp_path / "m.int8.onnx").write_bytes(b"lost")
    assert add_precisions(path, request, out)[1] is True
    assert add_precisions(path, dataclasses.replace(request, calibration_images=8), out)[1] is True


def test_what_is_made_of_a_file_with_int8_is_made_anew_where_those_weights_are_others(tmp_path, plates):
    path, source, out = (tmp_path / name for name in ("f32.onnx", "source.onnx", "m.onnx"))
    add_precisions(write_model(path), Request(["int8"], plates), source)
    gated = Request(["int8"], None, plates)
    assert [add_precisions(source, gated, out)[1] for _ in range(2)] == [True, False]
    add_precisions(path, Request(["int8"], plates, None, 5), source)
    assert add_precisions(source, gated, out)[1] is True
    weights = [onnx.load(tmp_path / f"{name}.int8.onnx").graph for name in ("source", "m")]
    assert weights[0] == weights[1]


def test_single_layers_stay_f32_where_the_gate_fails_otherwise(tmp_path, plates, images):
    path, out = write_model(tmp_path / "f32.onnx", outlier=500.0), tmp_path / "m.onnx"
    assert Quantised(path, images).ranking()[0] == "second_conv"
    contract, _ = add_precisions(path, Request(["int8"], plates, plates), out)
    assert contract.provenance.protocol["precisions"]["int8"]["layers_in_f32"] == ["second_conv"]
    assert all(gate.passed for gate in contract.approved.values())


def test_without_a_gate_nothing_is_approved(tmp_path, plates):
    path, out = write_model(tmp_path / "f32.onnx"), tmp_path / "m.onnx"
    older = dataclasses.replace(CONTRACT, approved={"onnxruntime/int8": Gate(True, {"studies": 100.0})})
    write_metadata(path, METADATA_KEY, older.to_json(), path)
    contract, _ = add_precisions(path, Request(["int8"], plates), out)
    assert contract.approved == {}
    assert open_engine(out, "onnxruntime").precision == "f32"


def test_int8_without_images_is_refused_and_leaves_nothing(tmp_path, plates):
    path = write_model(tmp_path / "f32.onnx")
    with pytest.raises(DataError, match="--calibration"):
        add_precisions(path, Request(["int8"], None, plates), tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["f32.onnx"]


def test_the_weights_that_are_there_can_be_gated_on_another_machine(tmp_path, plates):
    path, out = write_model(tmp_path / "f32.onnx"), tmp_path / "m.onnx"
    made, _ = add_precisions(path, Request(["int8"], plates), out)
    elsewhere = {gate_key("openvino", "int8", "riscv64"): Gate(True)}
    weights = onnx.load(tmp_path / "m.int8.onnx").graph
    write_metadata(out, METADATA_KEY, dataclasses.replace(made, approved=elsewhere).to_json(), out)
    contract, _ = add_precisions(out, Request(["int8"], None, plates), out)
    assert onnx.load(tmp_path / "m.int8.onnx").graph == weights
    assert contract.approved.keys() > elsewhere.keys()
    assert open_engine(out, "onnxruntime", "int8").flags == ()
    remade, _ = add_precisions(out, Request(["int8"], plates, plates, 8), out)
    assert not remade.approved.keys() & elsewhere.keys()


def test_verb_prints_the_gates_and_says_by_its_exit_code_that_one_failed(tmp_path, plates):
    plates.write(tmp_path / "plates.parquet")
    path, out = write_model(tmp_path / "f32.onnx"), tmp_path / "m.onnx"
    arguments = ["export", str(path), "--precision", "int8", "--calibration", str(tmp_path / "plates.parquet")]
    arguments += ["--gate", str(tmp_path / "plates.parquet"), "--out", str(out), "--format", "json"]
    own = tmp_path / "m.int8.onnx"
    own.write_bytes(b"no model of mskscreen")
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert own.read_bytes() == b"no model of mskscreen"
    own.unlink()
    result = CliRunner().invoke(app, [*arguments, "--triton", str(tmp_path / "repository")])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["precision"], row["outcome"]) for row in rows] == [
        ("openvino/int8", "passed"),
        ("onnxruntime/int8", "passed"),
    ]
    contract = read_contract(out)
    for other, outcome in (({"passed": False}, "failed"), ({"measures": {"studies": 99.0}}, "too few studies")):
        poor = {key: dataclasses.replace(gate, **other) for key, gate in contract.approved.items()}
        write_metadata(out, METADATA_KEY, dataclasses.replace(contract, approved=poor).to_json(), out)
        again = CliRunner().invoke(app, arguments)
        assert again.exit_code == 3
        assert {row["outcome"] for row in json.loads(again.stdout)} == {outcome}
        assert "nothing to do" in again.stderr
    measures = next(iter(contract.approved.values())).measures | {"joint_auroc_change": 0.00503}
    poor = {key: Gate(False, measures) for key in contract.approved}
    write_metadata(out, METADATA_KEY, dataclasses.replace(contract, approved=poor).to_json(), out)
    said = CliRunner().invoke(app, arguments).stderr
    assert "openvino/int8 failed: joint_auroc_change 1.006 times its limit" in said
    assert CliRunner().invoke(app, ["export", str(path), "--precision", "int4"]).exit_code == 2
