"""Models that no engine opens: each is refused in one sentence, in the same words by both."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from mskscreen.errors import ContractError, ModelError
from mskscreen.inference import open_engine

both = pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])


def reshaped(name: str, shape: list[Any]) -> Callable[[Any], None]:
    """Declare another shape of an input or output."""

    def edit(model: Any) -> None:
        for port in [*model.graph.input, *model.graph.output]:
            if port.name == name:
                port.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    return edit


def second_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    model.graph.output.append(helper.make_tensor_value_info("echo", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Identity", ["more"], ["echo"]))


def wider_head(model: Any) -> None:
    model.graph.node[4].input[1] = "head2"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def flat_map(model: Any) -> None:
    model.graph.node[6].CopyFrom(helper.make_node("ReduceMean", ["active"], ["map"], axes=[1], keepdims=0))
    del model.graph.output[2].type.tensor_type.shape.dim[1]


@both
@pytest.mark.parametrize(
    ("make", "said"),
    [
        ({"drop": ("pred2",)}, "no output 'pred2', only"),
        ({"drop": ("map",)}, "no output 'map', only"),
        ({"edit": second_input}, "expected one input, found 2"),
        ({"edit": wider_head}, r"'pred1' has shape .*7\), expected \(1, 2\)"),
        ({"edit": flat_map}, r"'map' has shape .*expected \(1, 1, \?, \?\)"),
        ({"edit": reshaped("image", ["b", 3, 32, 32])}, "m.onnx"),
        ({"edit": lambda model: model.graph.node[0].MergeFromString(b"\x22\x04Noop")}, "m.onnx"),
    ],
)
def test_a_model_of_another_shape_is_refused_in_one_sentence(
    tmp_path: Path, tiny_model: Callable, engine: Any, make: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        open_engine(tiny_model(tmp_path / "m.onnx", **make), engine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda model: setattr(model.opset_import[0], "version", 99),
            r"its operator set 99 is newer than \d+, the last that is known; update",
        ),
        (lambda model: setattr(model, "ir_version", 99), r"its IR version 99 is newer than \d+, the last that"),
        (lambda model: setattr(model.graph.node[0], "op_type", "Noop"), r"\(This is an invalid model"),
    ],
)
def test_what_onnx_runtime_says_is_told_without_the_places_in_its_source(
    tmp_path: Path, tiny_model: Callable, edit: Callable, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        open_engine(tiny_model(tmp_path / "m.onnx", edit=edit), "onnxruntime")
    assert not re.search(r"ONNXRuntimeError|Load model|::|\.(cc|h):", str(caught.value))


def of_terabytes(*, fixed: bool) -> Callable[[Any], None]:
    """Make the network add what it fills 4 TiB for, of a size that stands in the file or comes from the image."""

    def edit(model: Any) -> None:
        sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [1 << 20, 1 << 20])
        model.graph.initializer.append(sizes)
        model.graph.node[4].output[0] = "scores"
        one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
        model.graph.node.extend(
            [
                helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
                helper.make_node("Ceil", ["brightest"], ["whole"]),
                helper.make_node("Cast", ["whole"], ["number"], to=TensorProto.INT64),
                helper.make_node("Mul", ["number", "sizes"], ["shape"]),
                helper.make_node("ConstantOfShape", ["sizes" if fixed else "shape"], ["huge"], value=one),
                helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0),
                helper.make_node("Add", ["scores", "most"], ["pred1"]),
            ]
        )

    return edit


@both
@pytest.mark.parametrize("fixed", [True, False])
def test_a_model_that_asks_for_terabytes_is_refused_in_plain_words(
    tmp_path: Path, tiny_model: Callable, engine: Any, fixed: bool
) -> None:
    path = tiny_model(tmp_path / "m.onnx", edit=of_terabytes(fixed=fixed))
    with pytest.raises(ModelError, match=r"this model \(it asks for more memory than can be had\)$"):
        open_engine(path, engine).run(np.ones((1, 1, 32, 32), np.float32))


@both
def test_another_input_size_than_the_contract_says_is_refused(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, engine: Any
) -> None:
    with pytest.raises(ModelError, match=r"'image' has shape .*expected \(1, 1, 64, 64\)"):
        open_engine(tiny_model(tmp_path / "m.onnx", contract=tiny_contract(input_size=(64, 64))), engine)


def input_of(kind: int) -> Callable[[Any], None]:
    """Make the network cast its image from another element type."""

    def edit(model: Any) -> None:
        model.graph.input[0].type.tensor_type.elem_type = kind
        model.graph.node[0].input[0] = "numbers"
        model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT))

    return edit


def pred1_of(kind: int) -> Callable[[Any], None]:
    """Make the network cast its first scores to another element type."""

    def edit(model: Any) -> None:
        model.graph.output[0].type.tensor_type.elem_type = kind
        model.graph.node[4].output[0] = "scores"
        model.graph.node.append(helper.make_node("Cast", ["scores"], ["pred1"], to=kind))

    return edit


@both
@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (input_of(TensorProto.UINT8), r"'image' holds (u8|tensor\(uint8\)), expected f32"),
        (input_of(TensorProto.FLOAT16), r"'image' holds (f16|tensor\(float16\)), expected f32"),
        (pred1_of(TensorProto.INT64), r"'pred1' holds (i64|tensor\(int64\)), expected f32"),
    ],
)
def test_ports_that_do_not_hold_f32_are_refused(
    tmp_path: Path, tiny_model: Callable, engine: Any, edit: Callable, said: str
) -> None:
    """OpenVINO casts what it is given: of an image in [0, 1] uint8 leaves nothing, and every score is the same."""
    with pytest.raises(ModelError, match=said):
        open_engine(tiny_model(tmp_path / "m.onnx", edit=edit), engine)


def test_a_name_that_no_engine_takes_is_refused_in_one_sentence(tmp_path: Path, tiny_model: Callable) -> None:
    assert open_engine(tiny_model(tmp_path / "\u202eäö 模型.onnx"), "onnxruntime").run
    with pytest.raises(ModelError, match="its name is not in UTF-8, which the engines ask for; rename it"):
        open_engine(tiny_model(tmp_path / "\udcff.onnx"), "onnxruntime")


def test_a_model_without_contract_says_how_to_give_it_one(tmp_path: Path, tiny_model: Callable) -> None:
    path = tiny_model(tmp_path / "m.onnx", contract=None)
    with pytest.raises(ContractError, match=r"m\.onnx: holds no contract.*m\.toml"):
        open_engine(path)
    for text in ("name = ", 'name = "x"\n', "name = 2020-01-01\n", "\xff"):
        path.with_suffix(".toml").write_bytes(text.encode("latin-1"))
        with pytest.raises(ContractError, match=r"m\.(onnx|toml)"):
            open_engine(path)


def test_a_contract_of_later_software_is_refused_with_the_name_of_the_file(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    later = json.loads(tiny_contract().to_json()) | {"schema": 99}

    def rewrite(model: Any) -> None:
        model.metadata_props[0].value = json.dumps(later)

    with pytest.raises(ContractError, match=r"m\.onnx.*schema 99"):
        open_engine(tiny_model(tmp_path / "m.onnx", edit=rewrite))
