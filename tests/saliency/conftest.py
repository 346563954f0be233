"""A model that calls abnormal what is bright, so that every method must point at a bright square; and maps."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from judged_maps import SHAPE, box

from mskscreen.contract import METADATA_KEY, MapOutput, ModelContract
from mskscreen.predictions import Prediction, Predictions
from mskscreen.saliency.maps import MapRecord, write_values

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


@pytest.fixture
def judged(tmp_path):
    """Twenty patients with a bright square each, its boxes as CSV, predictions, and maps of two methods."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "maps"
    folder.mkdir()
    rows, lines = [], ["image,x,y,width,height,kind,joint,patient"]
    for number in range(20):
        place = int(rng.integers(0, 40)), int(rng.integers(0, 30))
        mask = box(place)
        file = tmp_path / f"image{number}.png"
        Image.fromarray((mask * 220).astype(np.uint8)).save(file)
        kind, joint = ("fracture", "wrist") if number % 2 else ("lesion", "hand")
        lines.append(f"{file.name},{place[1]},{place[0]},10,10,{kind},{joint},p{number}")
        # The last two are missed: they must not be counted.
        called = (0.9, True) if number < 18 else (0.1, False)
        rows.append(Prediction(str(file), f"s{number}", joint, (1.0,) + (0.0,) * 6, *called))
        for method, values in (("hirescam", mask * 1.0), ("rise", rng.random(SHAPE))):
            name = f"{number}.{method}.png"
            slope, intercept = write_values(folder / name, values.astype(np.float32))
            MapRecord(
                *(str(file), f"s{number}", joint, *called, method, "abnormal", "x"),
                map=name,
                rows=SHAPE[0],
                columns=SHAPE[1],
                slope=slope,
                intercept=intercept,
                passes=1 if method == "hirescam" else 1000,
            ).write(folder / f"{number}.{method}.map.json")
    Predictions(tuple(rows), {"name": "bright"}).write(tmp_path / "p.json")
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    return tmp_path
