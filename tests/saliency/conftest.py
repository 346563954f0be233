"""A model that calls abnormal what is bright, so that every method must point at a bright square."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mskscreen.contract import METADATA_KEY, MapOutput, ModelContract

SIDE, CELL = 64, 4


@pytest.fixture(scope="session")
def bright_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the model; `bias` moves its abnormality score, `hidden` puts a ReLU layer before the heads.

    The joint score of the wrist is that of abnormality, so both heads see the same.
    """
    from onnx import TensorProto, helper, numpy_helper

    def make(fit: str = "letterbox", bias: float = 1.0, hidden: bool = False, with_map: bool = True) -> Path:
        joints = np.zeros((1, 7))
        joints[0, 1] = 40
        weights = {
            "head1": np.array([[0.0, 40.0]]),
            "bias1": np.array([0.0, bias]),
            "head2": joints,
            "wide": np.array([[1.0]]),
            "scale": np.array([40.0 / (SIDE // CELL) ** 2]),
        }
        pool = {"kernel_shape": [CELL, CELL], "strides": [CELL, CELL]}
        last = "active" if hidden else "flat"
        nodes = [
            helper.make_node("AveragePool", ["image"], ["features"], **pool),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", [last, "head1", "bias1"], ["pred1"]),
            helper.make_node("Gemm", [last, "head2"], ["pred2"]),
        ]
        if hidden:
            nodes[3:3] = [
                helper.make_node("MatMul", ["flat", "wide"], ["layer"]),
                helper.make_node("Relu", ["layer"], ["active"]),
            ]
        shapes = {"pred1": ["batch", 2], "pred2": ["batch", 7]}
        if with_map:
            nodes.append(helper.make_node("Mul", ["features", "scale"], ["map"]))
            shapes["map"] = ["batch", 1, SIDE // CELL, SIDE // CELL]
        graph = helper.make_graph(
            nodes,
            "bright",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
            [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        contract = ModelContract(
            name="bright",
            architecture="bright",
            preprocessing=f"decode|grayscale|window(auto)|{fit}({SIDE},{SIDE},bilinear,antialias)|unit",
            input_size=(SIDE, SIDE),
            map=MapOutput("hirescam", "features", CELL) if with_map else None,
        )
        helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
        path = tmp_path_factory.mktemp("bright") / "bright.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make
