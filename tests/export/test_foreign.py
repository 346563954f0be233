"""Foreign files get a contract, a present operator set and any batch size, and compute what they did."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY
from mskscreen.errors import ContractError, ModelError
from mskscreen.export import foreign
from mskscreen.export.foreign import OPSET, _with_dynamic_batch, import_model
from mskscreen.inference import Screener, catalogue, open_engine
from mskscreen.inference.catalogue import published, read_contract
from mskscreen.inference.onnx_file import write_metadata
from mskscreen.inference.precision import sha256_of
from mskscreen.inference.repository import write_triton
from mskscreen.inference.verify import ABSENT, FAILED, OK, verify

SIZE = 32
DESCRIPTION = (
    'name = "stand-in"\narchitecture = "resnet18"\ninput_size = [32, 32]\nbatch = 1\n'
    'preprocessing = "decode|grayscale|resize(32,32,bilinear,antialias)|unit"\n'
)


def write_published(path, *, opset=9, reshape="constant", batch=1, size=SIZE, ir_version=4):
    """A file with the signature of the published six: an early exporter's graph of one fixed batch.

    `reshape` flattens to a constant shape, which may be a list of numbers (`ints`), or so that the batch is part
    of the computation (`mixing`).
    """
    rng = np.random.default_rng(0)
    weights = {
        "conv": rng.normal(0, 0.3, (6, 1, 3, 3)),
        "gamma": rng.random(6) + 0.5,
        "beta": rng.normal(0, 0.1, 6),
        "mean": rng.normal(0, 0.1, 6),
        "var": rng.random(6) + 0.5,
        "head1": rng.normal(0, 1, (2, 6)),
        "bias1": rng.normal(0, 1, 2),
        "head2": rng.normal(0, 1, (7, 6)),
        "bias2": rng.normal(0, 1, 7),
    }
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([batch, 6]), "shape"))
    nodes = [
        helper.make_node("Conv", ["input", "conv"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Reshape", ["d", "shape"], ["e"]),
        helper.make_node("Gemm", ["f", "head1", "bias1"], ["pred1"], transB=1),
        helper.make_node("Gemm", ["f", "head2", "bias2"], ["pred2"], transB=1),
    ]
    if reshape == "mixing":
        nodes.insert(5, helper.make_node("Softmax", ["e"], ["f"], axis=0))
    else:
        nodes.insert(5, helper.make_node("Identity", ["e"], ["f"]))
    if reshape == "ints":
        nodes.insert(0, helper.make_node("Constant", [], ["shape"], value_ints=[batch, 6]))
        tensors.pop()
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 1, size, size])]
    # As early exporters did, the weights are inputs too.
    inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, count])
        for name, count in {"pred1": 2, "pred2": 7}.items()
    ]
    graph = helper.make_graph(nodes, "published", inputs, outputs, tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version), path
    )
    return path


def describe(path: Path, text: str = DESCRIPTION) -> Path:
    path.write_text(text)
    return path


def original(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results = [session.run(["pred1", "pred2"], {"input": image[None]}) for image in images]
    return [np.concatenate(column) for column in zip(*results, strict=True)]


@pytest.fixture
def images():
    return np.random.default_rng(5).random((4, 1, SIZE, SIZE), np.float32)


@pytest.mark.parametrize("ir_version", [3, 4])  # 3, of 2018, asks for every weight among the inputs
def test_an_old_file_of_one_fixed_batch_becomes_present_and_dynamic(tmp_path, images, ir_version):
    path, out = write_published(tmp_path / "old.onnx", ir_version=ir_version), tmp_path / "new.onnx"
    contract = import_model(path, out, describe(tmp_path / "contract.toml"))
    assert contract.batch is None
    assert contract.map is None
    assert read_contract(out) == contract
    notes = contract.provenance.protocol["import"]
    assert (notes["opset"], notes["opset_converted"], notes["batch"]) == (9, OPSET, "made dynamic")
    assert notes["parity"] < 1e-5
    assert notes["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    model = onnx.load(out)
    onnx.checker.check_model(model)
    assert [port.name for port in model.graph.input] == ["input"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    wanted = original(path, images)
    for engine in ("openvino", "onnxruntime"):
        found = open_engine(out, engine, "f32").run(images)
        np.testing.assert_allclose(found["pred1"], wanted[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["pred2"], wanted[1], rtol=1e-4, atol=1e-5)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["pred2"], {"input": images})[0], wanted[1], rtol=1e-4, atol=1e-5)
    assert [check for check in verify(out) if check.outcome == FAILED] == []


def test_a_graph_that_mixes_its_batch_keeps_it(tmp_path, images):
    path = write_published(tmp_path / "old.onnx", opset=13, reshape="mixing")
    contract = import_model(path, tmp_path / "new.onnx", describe(tmp_path / "contract.toml"))
    assert contract.batch == 1
    assert contract.provenance.protocol["import"]["batch"] == 1
    wanted = original(path, images)
    found = open_engine(tmp_path / "new.onnx", "onnxruntime").run(images)
    np.testing.assert_allclose(found["pred2"], wanted[1], rtol=1e-4, atol=1e-5)


def test_a_shape_that_is_a_list_of_numbers_is_made_dynamic_too(tmp_path, images):
    path, out = write_published(tmp_path / "m.onnx", opset=13, reshape="ints"), tmp_path / "new.onnx"
    assert import_model(path, out, describe(tmp_path / "contract.toml")).batch is None
    found = open_engine(out, "onnxruntime", "f32").run(images)
    np.testing.assert_allclose(found["pred2"], original(path, images)[1], rtol=1e-4, atol=1e-5)


def test_a_batch_of_minus_one_is_one_that_is_not_known(tmp_path, images):
    path, out = write_published(tmp_path / "m.onnx", batch=-1), tmp_path / "new.onnx"
    assert import_model(path, out, describe(tmp_path / "contract.toml")).batch is None
    found = open_engine(out, "onnxruntime", "f32").run(images)
    np.testing.assert_allclose(found["pred2"], original(path, images)[1], rtol=1e-4, atol=1e-5)


def test_outputs_that_no_contract_knows_are_not_compared(tmp_path):
    path, out = write_published(tmp_path / "m.onnx"), tmp_path / "new.onnx"
    model = onnx.load(path)
    names = helper.make_tensor("names", TensorProto.STRING, [2], [b"normal", b"abnormal"])
    model.graph.initializer.extend([names, numpy_helper.from_array(np.float32(0), "zero")])
    for node, kind, shape in (
        (helper.make_node("Greater", ["pred1", "zero"], ["called"]), TensorProto.BOOL, [1, 2]),
        (helper.make_node("ArgMax", ["pred1"], ["index"], axis=1, keepdims=0), TensorProto.INT64, [1]),
        (helper.make_node("Gather", ["names", "index"], ["word"]), TensorProto.STRING, [1]),
        (helper.make_node("Div", ["pred1", "zero"], ["infinite"]), TensorProto.FLOAT, [1, 2]),
    ):
        model.graph.node.append(node)
        model.graph.output.append(helper.make_tensor_value_info(node.output[0], kind, shape))
    onnx.save(model, path)
    assert import_model(path, out, describe(tmp_path / "contract.toml")).batch is None


def test_a_graph_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "MOST_SECONDS", 0.1)
    path = write_published(tmp_path / "m.onnx")
    model = onnx.load(path)
    numbers = [helper.make_tensor_value_info("i", TensorProto.INT64, [])]
    flags, scores = (
        [helper.make_tensor_value_info(name, kind, shape) for name in names]
        for names, kind, shape in (
            (("go", "go_on"), TensorProto.BOOL, []),
            (("now", "next"), TensorProto.FLOAT, None),
        )
    )
    steps = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Neg", ["now"], ["next"])]
    body = helper.make_graph(steps, "body", [*numbers, flags[0], scores[0]], [flags[1], scores[1]])
    model.graph.node[-1].output[0] = "scores"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 << 62), "steps"))
    model.graph.node.append(helper.make_node("Loop", ["steps", "", "scores"], ["pred2"], body=body))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=f"^{path}: ONNX Runtime cannot run it .it has not ended after 0.1 sec"):
        import_model(path, tmp_path / "new.onnx", describe(tmp_path / "contract.toml"))


def test_an_operator_of_another_set_may_be_called_reshape_and_take_no_shape(tmp_path):
    model = onnx.load(write_published(tmp_path / "m.onnx"))
    model.graph.node.append(helper.make_node("Reshape", ["e"], ["own"], domain="own"))
    assert _with_dynamic_batch(model).graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_triton_is_told_of_a_foreign_input_by_its_own_name(tmp_path):
    path, out = write_published(tmp_path / "old.onnx"), tmp_path / "new.onnx"
    import_model(path, out, describe(tmp_path / "contract.toml"))
    config = (write_triton(out, tmp_path / "repository")[0] / "config.pbtxt").read_text()
    (port,) = onnx.load(out).graph.input
    assert re.findall(r'input { name: "(\w+)"', config) == [port.name] == ["input"]


def test_the_published_files_are_known_by_their_digest(tmp_path, monkeypatch):
    path = write_published(tmp_path / "any name.onnx", size=224)
    content = path.read_bytes()
    known = dict(published())
    values = {name: getattr(known["resnet18"], name) for name in ("name", "title", "file", "input_size", "url")}
    known["resnet18"] = catalogue.PublishedModel(
        **values, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setattr(catalogue, "published", lambda: known)
    contract = import_model(path, tmp_path / "new.onnx")
    assert (contract.architecture, contract.input_size, contract.batch) == ("resnet18", (224, 224), None)
    assert "assumption" in contract.provenance.notes
    assert contract.operating_points == {"balanced": 0.5}
    # It can be used as it is, too: one image at a time.
    table = Screener.load(path).predict([np.full((60, 40), 90, np.uint8)] * 2)
    again = Screener.load(tmp_path / "new.onnx").predict([np.full((60, 40), 90, np.uint8)])
    assert table.images[1].p_abnormal == pytest.approx(again.images[0].p_abnormal, abs=1e-5)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ContractError, match="none of the six published files"):
        import_model(path, tmp_path / "new.onnx")


def test_the_catalogue_is_that_of_the_release():
    facts = {
        "inception_v3": ("inception.onnx", 88182778, 299),
        "xception": ("xception.onnx", 84305991, 299),
        "densenet121": ("densenet.onnx", 28680803, 224),
        "resnet18": ("resnet.onnx", 44968586, 224),
        "vgg16_bn": ("vgg16.onnx", 538763987, 224),
        "vgg19_bn": ("vgg19.onnx", 560025444, 224),
    }
    assert {name: (m.file, m.bytes, m.input_size) for name, m in published().items()} == facts
    for model in published().values():
        assert model.url.startswith("https://")
        assert len(bytes.fromhex(model.sha256)) == 32
        assert model.contract.batch == 1


def test_what_cannot_be_imported_says_so_and_leaves_nothing(tmp_path):
    path = write_published(tmp_path / "old.onnx")
    of_48 = DESCRIPTION.replace("[32, 32]", "[48, 48]").replace("32,32", "48,48")
    other_size = describe(tmp_path / "size.toml", of_48)
    with pytest.raises(ModelError, match=r"old.onnx: input 'input' has shape \(1, 1, 32, 32\), expected"):
        import_model(path, tmp_path / "new.onnx", other_size)
    with pytest.raises(ContractError, match=r"c\.toml: .*field 'nme' is unknown"):
        import_model(path, tmp_path / "new.onnx", describe(tmp_path / "c.toml", DESCRIPTION + 'nme = "x"\n'))
    for wrong, said in (
        (
            DESCRIPTION.replace("preprocessing", "preprocesing"),
            "'preprocesing' is unknown, the nearest is 'preproc",
        ),
        (DESCRIPTION.replace("batch = 1", 'batch = "1"'), "batch: expected int, found str"),
    ):
        with pytest.raises(ContractError, match=rf"c\.toml: .*{said}.*; edit c\.toml$"):
            import_model(path, tmp_path / "new.onnx", describe(tmp_path / "c.toml", wrong))
    for wrong, said in (("antialais)", "write 'resize"), ("resize(16", "does not give the input_size")):
        text = re.sub("antialias\\)" if wrong[0] == "a" else r"resize\(32", wrong, DESCRIPTION)
        with pytest.raises(ContractError, match=said):
            import_model(path, tmp_path / "new.onnx", describe(tmp_path / "c.toml", text))
    assert not (tmp_path / "new.onnx").exists()
    import_model(path, tmp_path / "new.onnx", describe(tmp_path / "contract.toml"))
    with pytest.raises(ModelError, match="carries a contract already"):
        import_model(tmp_path / "new.onnx", tmp_path / "newer.onnx")
    assert not (tmp_path / "newer.onnx").exists()


def test_a_preprocessing_that_cannot_be_used_fails_the_check(tmp_path):
    out = tmp_path / "new.onnx"
    contract = import_model(write_published(tmp_path / "old.onnx"), out, describe(tmp_path / "contract.toml"))

    def outcome(steps):
        write_metadata(out, METADATA_KEY, replace(contract, preprocessing=steps).to_json(), out)
        return {check.check: check.outcome for check in verify(out)}["preprocessing"]

    steps = contract.preprocessing
    assert outcome(steps) == OK
    assert outcome(steps.replace("antialias", "antialais")) == outcome(steps.replace("32,", "16,")) == FAILED


def test_verify_says_where_the_contract_of_a_foreign_file_is_from(tmp_path, monkeypatch):
    path = write_published(tmp_path / "old.onnx")
    beside = describe(tmp_path / "old.toml")

    def digest():
        (check,) = [check for check in verify(path) if check.check == "digest"]
        return check.outcome, check.found

    assert digest() == (ABSENT, "old.toml describes the file and holds no digest")
    beside.unlink()
    known = catalogue.PublishedModel("n", "t", "old.onnx", path.stat().st_size, sha256_of(path), SIZE, "https://a")
    monkeypatch.setattr(catalogue, "published", lambda: {"n": known})
    assert digest() == (OK, "SHA-256 of the published old.onnx")


def test_what_no_engine_can_open_fails_the_check_also_without_a_record(tmp_path):
    path = write_published(tmp_path / "old.onnx")
    describe(tmp_path / "old.toml")

    def outcomes():
        return [check.outcome for check in verify(path) if check.check.startswith("self-test")]

    assert outcomes() == [ABSENT, ABSENT]
    model = onnx.load(path)
    under_another_name(model)
    onnx.save(model, path)
    assert outcomes() == [FAILED, FAILED]


def without_opset(model):
    model.opset_import[0].domain = "elsewhere"


def without_input(model):
    image = np.zeros((1, 1, SIZE, SIZE), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(image, model.graph.input[0].name))
    del model.graph.input[0]


def under_another_name(model):
    model.graph.node[-1].output[0] = model.graph.output[1].name = "joint"


def of_bytes(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node[0].input[0] = "numbers"
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["numbers"], to=TensorProto.FLOAT))


def beyond_its_scores(model):
    node = model.graph.node[-1]
    node.output[0] = "scores"
    model.graph.initializer.append(numpy_helper.from_array(np.arange(3, 10), "which"))
    model.graph.node.append(helper.make_node("Gather", ["scores", "which"], ["pred2"], axis=1))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (beyond_its_scores, r"ONNX Runtime cannot run it \(.*idx=7 must be within"),
        (without_opset, "operators it uses"),
        (without_input, "expected one input, found 0"),
        (of_bytes, r"'input' holds tensor\(uint8\), expected f32"),
        (under_another_name, "has no output 'pred2', only pred1, joint"),
    ],
)
def test_a_foreign_graph_that_lacks_something_is_named_with_what_it_lacks(tmp_path, harm, said):
    path = write_published(tmp_path / "old.onnx")
    model = onnx.load(path)
    harm(model)
    onnx.save(model, path)
    with pytest.raises(ModelError, match=f"^{path}: .*{said}"):
        import_model(path, tmp_path / "new.onnx", describe(tmp_path / "contract.toml"))
    assert not (tmp_path / "new.onnx").exists()


def test_a_foreign_file_that_does_not_parse_is_named(tmp_path):
    path = write_published(tmp_path / "old.onnx")
    # A node that begins with an operator of wire type 7, which there is not, in a field that is not walked into.
    path.write_bytes(path.read_bytes() + b"\x42\x02\x07\x07")
    with pytest.raises(ModelError, match=f"^{path}: not an ONNX file"):
        import_model(path, tmp_path / "new.onnx", describe(tmp_path / "contract.toml"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_a_number_is_refused(tmp_path, value):
    path = write_published(tmp_path / "old.onnx", opset=OPSET)
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias1")
    bias.CopyFrom(numpy_helper.from_array(np.array([0, value], np.float32), "bias1"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=f"^{path}: gives outputs that are not finite"):
        import_model(path, tmp_path / "new.onnx", describe(tmp_path / "contract.toml"))


def test_verbs_import_show_verify_compare(tmp_path):
    path = write_published(tmp_path / "old.onnx")
    description, out = describe(tmp_path / "contract.toml"), tmp_path / "old-mskscreen.onnx"

    def run(*arguments):
        return CliRunner().invoke(app, ["model", *map(str, arguments)])

    result = run("import", path, "--describe", description)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out)
    assert "batch made dynamic" in result.stderr
    shown = run("show", out, "--format", "json").stdout
    for text in (
        "stand-in",
        "1 x 32 x 32",
        "? x 7",
        '"precision"',
        hashlib.sha256(out.read_bytes()).hexdigest(),
        "import.opset",
    ):
        assert text in shown
    assert run("verify", out).exit_code == 0
    damaged = tmp_path / "damaged.onnx"
    content = bytearray(out.read_bytes())
    at = content.find(
        np.float32(onnx.numpy_helper.to_array(onnx.load(out).graph.initializer[0]).flat[0]).tobytes()
    )
    content[at + 3] ^= 0x80
    damaged.write_bytes(content)
    result = run("verify", damaged, "--format", "json")
    assert result.exit_code == 3
    assert result.stdout.count('"failed"') == 3  # the digest, and the self-test on both engines
    compared = run("compare", out, damaged, "--format", "json").stdout
    assert "self-test image: p_abnormal" in compared
    assert "content_sha256" not in compared  # the contracts are the same
    assert run("download", "resnet19").exit_code == 2
    assert "vgg16_bn" in run("download").stdout
