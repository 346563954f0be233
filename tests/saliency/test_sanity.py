"""Maps fall apart with the weights and the labels, and stay as they are under what should not matter."""

import json
from pathlib import Path

import numpy as np
import pytest

from mskscreen.contract import METADATA_KEY
from mskscreen.errors import ModelError
from mskscreen.evaluation.explain.sanity import (
    _changed,
    _layers,
    cascade,
    label_randomisation,
    repeatability,
    sanity,
)
from mskscreen.inference import Screener
from mskscreen.inference.catalogue import model_path
from mskscreen.inference.tail import read_graph
from mskscreen.pixels import Preprocessing, read_radiograph

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_dim_radiograph_of_sixteen_bits_stays_as_bright_as_it_is_shown() -> None:
    y, x = np.mgrid[:40, :40]
    radiograph = read_radiograph((40 * (x + y)).astype(np.uint16))
    for windowed in (True, False):
        preprocessing = Preprocessing(32, 32, window=windowed)
        before = preprocessing(radiograph)
        for name, changed in _changed(radiograph, preprocessing):
            # A move brings the far edge in.
            assert np.median(np.abs(preprocessing(changed) - before)) < 0.05, name


def test_maps_fall_apart_with_the_weights_and_stay_under_what_should_not_matter(tiny_model, tmp_path):
    path = tiny_model(tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    radiographs = [read_radiograph(rng.integers(0, 255, (40, 40)).astype(np.uint8)) for _ in range(3)]
    inputs = [np.float32(rng.random((1, 32, 32))) for _ in range(3)]
    stages = cascade(path, inputs)
    assert stages[0]["similarity"] == pytest.approx(1)
    assert stages[-1]["share"] == 1
    assert stages[-1]["similarity"] < 0.8
    unlike = tmp_path / "unlike.onnx"
    tiny_model(unlike, edit=_other_contract)
    with pytest.raises(ModelError, match="architecture is 'unlike'"):
        # Said before an image is looked for.
        sanity(Screener.load(path), [tmp_path / "none.png"], unlike)
    other = tiny_model(tmp_path / "n.onnx", edit=_other_weights)
    assert label_randomisation(path, path, inputs) == pytest.approx(1)
    assert label_randomisation(path, other, inputs) < 0.9
    same = repeatability(path, radiographs)
    assert same["ONNX Runtime"] > 0.99
    assert set(same) >= {"JPEG of quality 90", "moved down by a pixel", "moved right by a pixel", "ONNX Runtime"}


def test_a_model_of_shuffled_weights_is_alive_and_its_maps_are_others():
    model = Screener.load("demo", precision="f32", threads=1)
    inputs = [model.preprocessing(read_radiograph(EXAMPLES / name)) for name in ("finger.png", "humerus.png")]
    graph = read_graph(model_path("demo"))
    convolutions = {node.get_name() for node in graph.get_ops() if "Convolution" in node.get_type_name()}
    assert convolutions <= {node.get_name() for node in _layers(graph)}, "those of groups too"
    first, *others = cascade(model_path("demo"), inputs, stages=3)
    assert first == {"share": 0, "similarity": pytest.approx(1), "constant": 0}
    assert [stage["constant"] for stage in others] == [0, 0, 0]
    assert others[0]["similarity"] < 0.7
    assert max(abs(stage["similarity"]) for stage in others[1:]) < 0.4


def _other_contract(model):
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"architecture": "unlike"})


def _other_weights(model):
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        values = np.random.default_rng(1).permutation(numpy_helper.to_array(tensor).ravel())
        tensor.CopyFrom(numpy_helper.from_array(values.reshape(tuple(tensor.dims)), tensor.name))
