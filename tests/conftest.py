"""Settings every test shares (one thread a process, no model hub), and what they screen: a tiny model and small
radiographs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import settings
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from mskscreen.contract import METADATA_KEY, MapOutput, ModelContract, Novelty

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The first example of a test pays for imports; a busy machine pays for others.
settings.register_profile("mskscreen", deadline=None)
settings.load_profile("mskscreen")

SIZE = 32


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep compiled models out of the user's cache."""
    os.environ["MSKSCREEN_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tiny_contract() -> Callable[..., ModelContract]:
    """Make the contract of a tiny model; keywords replace its fields."""

    def make(**fields: Any) -> ModelContract:
        values: dict[str, Any] = {
            "name": "tiny",
            "architecture": "tiny",
            "preprocessing": f"decode|grayscale|window(auto)|resize({SIZE},{SIZE},bilinear,antialias)|unit",
            "input_size": (SIZE, SIZE),
            "map": MapOutput("hirescam", "relu", 2),
            "operating_points": {"balanced": 0.5, "sensitive": 0.2, "specific": 0.8},
            "joint_confidence": 0.01,
        }
        return ModelContract(**values | fields)

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_contract: Callable[..., ModelContract]) -> Callable[..., Path]:
    """Write a network of one convolution as a model of this project: image -> pred1, pred2, map.

    `batch` fixes its batch, `contract=None` leaves the metadata out, `drop` names outputs that it lacks, and
    `edit` may change the onnx model before it is written.
    """
    from onnx import TensorProto, helper, numpy_helper

    default = tiny_contract()

    def make(
        path: Path,
        *,
        batch: int | None = None,
        contract: ModelContract | None = default,
        drop: tuple[str, ...] = (),
        edit: Callable[[Any], None] = lambda model: None,
    ) -> Path:
        rng = np.random.default_rng(7)
        weights = {
            "conv": rng.normal(0, 1, (8, 1, 5, 5)),
            "head1": rng.normal(0, 2, (8, 2)),
            "head2": rng.normal(0, 2, (8, 7)),
            "cam": rng.normal(0, 1, (1, 8, 1, 1)),
        }
        nodes = [
            helper.make_node("Conv", ["image", "conv"], ["features"], strides=[2, 2], pads=[2, 2, 2, 2]),
            helper.make_node("Relu", ["features"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "head1"], ["pred1"]),
            helper.make_node("Gemm", ["flat", "head2"], ["pred2"]),
            helper.make_node("Conv", ["active", "cam"], ["map"]),
        ]
        rows = batch or "batch"
        shapes = {"pred1": [rows, 2], "pred2": [rows, 7], "map": [rows, 1, SIZE // 2, SIZE // 2]}
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [rows, 1, SIZE, SIZE])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in shapes.items()
                if name not in drop
            ],
            [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        if contract is not None:
            helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
        edit(model)
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.fixture(scope="session")
def write_png() -> Callable[..., Path]:
    """Write a grey PNG of its own for each seed; folders are made."""

    def write(path: Path, seed: int = 0, shape: tuple[int, int] = (40, 50)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each seed has its own brightness: a tiny network sees the difference.
        pixels = np.random.default_rng(seed).integers(0, 40 + 43 * (seed % 5), shape)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., Path]:
    """Write a small digital radiograph as DICOM; keywords set its elements."""

    def write(path: Path, seed: int = 0, **elements: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 4096, (40, 50)).astype(np.uint16)
        values = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
            "SOPInstanceUID": generate_uid(),
            "Modality": "DX",
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": 40,
            "Columns": 50,
            "SamplesPerPixel": 1,
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "PixelData": pixels.tobytes(),
        } | elements
        dataset = pydicom.Dataset()
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path]) -> Path:
    """A tiny model on disk."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def with_novelty(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], tiny_contract: Callable[..., Any]
) -> Path:
    """A tiny model on disk that also gives a distance from its training data, one number an image."""
    from onnx import TensorProto, helper

    def distance(model: Any) -> None:
        model.graph.node.append(helper.make_node("ReduceL2", ["flat"], ["novelty"], axes=[1], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))

    contract = tiny_contract(novelty=Novelty("mahalanobis", 1.0, 0.95))
    return tiny_model(tmp_path_factory.mktemp("novelty") / "tiny.onnx", contract=contract, edit=distance)
