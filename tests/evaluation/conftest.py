"""Synthetic predictions under MURA names: patients with several studies, several views, scores of set quality."""

import numpy as np
import pytest

from mskscreen.anatomy import JointType
from mskscreen.contract import ModelContract
from mskscreen.evaluation.cases import join
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.table import Table
from mskscreen.predictions import FLAG_ERROR, Prediction, Predictions, score

CONTRACT = ModelContract(
    name="toy",
    architecture="resnet18",
    preprocessing="decode|grayscale|window(auto)|resize(224,224,bilinear,antialias)|unit",
    input_size=(224, 224),
    operating_points={"balanced": 0.5, "sensitive": 0.3, "specific": 0.7},
)


def make_predictions(
    studies=200, *, seed=0, first_patient=1, quality=1.6, scale=1.0, errors=0, contract=CONTRACT, split="valid"
):
    """About 2 images a study and 1.3 studies a patient; `scale` > 1 makes the raw scores overconfident."""
    rng = np.random.default_rng(seed)
    rows = []
    for s in range(studies):
        patient = f"patient{first_patient + int(s / 1.3):05d}"
        joint = JointType(int(rng.integers(7)))
        abnormal = bool(rng.random() < 0.42)
        study = f"{joint.codes.mura}/{patient}/study{s}"
        evidence = rng.normal(quality * (abnormal - 0.5), 0.7)
        for i in range(int(rng.integers(1, 4))):
            file = f"MURA-v1.1/{split}/{study}_{'positive' if abnormal else 'negative'}/image{i + 1}.png"
            z = evidence + rng.normal(0, 0.7)
            pred1 = scale * np.array([-z, z])
            pred2 = rng.normal(0, 1, 7) + 4.0 * (np.arange(7) == joint)
            if len(rows) < errors:
                rows.append(
                    Prediction(file, study, flags=(FLAG_ERROR,), error="the file is empty", patient=patient)
                )
            else:
                rows.append(Prediction(file, study, patient=patient, **score(contract, pred1, pred2)))
    return Predictions(tuple(rows), {"name": contract.name}, 0.5)


def make_cases(*args, level="study", **settings):
    table = Table.of(make_predictions(*args, **settings))
    return join(table, labels_from_paths(table)).cases(level)


@pytest.fixture(scope="session")
def predictions():
    return make_predictions()


@pytest.fixture(scope="session")
def cases():
    return make_cases()


def write_tiny_model(path, contract=CONTRACT):
    """A real ONNX file: abnormal where the image is bright, its joint by the brightness of the upper half."""
    import onnx
    from onnx import TensorProto, helper

    from mskscreen.contract import METADATA_KEY

    size = contract.input_size
    weights = {
        "w1": np.stack([-np.ones(size), np.ones(size)]).reshape(2, -1).T * 8 / (size[0] * size[1]),
        "b1": np.array([4.0, -4.0]),
        "w2": np.tile(np.arange(7.0), (size[0] * size[1], 1)) / (size[0] * size[1]),
        "b2": np.zeros(7),
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["pred1"]),
        helper.make_node("Gemm", ["flat", "w2", "b2"], ["pred2"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, *size])],
        [
            helper.make_tensor_value_info("pred1", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("pred2", TensorProto.FLOAT, ["batch", 7]),
        ],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: contract.to_json(), "author": "somebody"})
    path.write_bytes(model.SerializeToString())
    return path
