"""The layers behind the last feature map: read from the graph, differentiated without a framework."""

import numpy as np
import pytest

from mskscreen.errors import ModelError
from mskscreen.evaluation.explain.explainer import Explainer
from mskscreen.inference.catalogue import model_path
from mskscreen.inference.engines import open_engine
from mskscreen.inference.tail import Tail
from mskscreen.saliency import cam
from mskscreen.saliency.target import Target


@pytest.fixture(scope="module")
def demo():
    engine = open_engine(model_path("demo"), precision="f32", threads=1)
    return (
        engine,
        Tail.read(engine.path),
        np.random.default_rng(0).random((1, *engine.contract.input_size), np.float32),
    )


def test_scores_of_the_tail_are_those_of_the_model(demo):
    engine, tail, image = demo
    outputs = engine.run(image[None])
    for name in ("pred1", "pred2"):
        np.testing.assert_allclose(tail.scores(tail.features(image), name), outputs[name][0], atol=1e-4)


def test_the_map_in_the_graph_is_hirescam_of_the_tail(demo):
    engine, tail, image = demo
    features = tail.features(image)
    target = Target.parse("abnormal")
    gradient = tail.gradient(features, "pred1", target.direction(tail.scores(features, "pred1")))
    expected = engine.run(image[None])["map"][0, 0]
    np.testing.assert_allclose(cam.hirescam(features, gradient), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("label", ["abnormal", "wrist", "shoulder"])
def test_gradients_of_both_heads_predict_what_a_small_step_does(demo, label):
    _, tail, image = demo
    target = Target.parse(label)
    features = tail.features(image).astype(np.float64)
    step = features * np.random.default_rng(1).normal(0, 1e-3, features.shape)

    def odds(cells):
        return target.log_odds({target.output: tail.scores(cells, target.output)[None]})[0]

    gradient = tail.gradient(features, target.output, target.direction(tail.scores(features, target.output)))
    assert (gradient * 2 * step).sum() == pytest.approx(odds(features + step) - odds(features - step), rel=1e-2)


def test_log_odds_are_those_of_the_softmax():
    scores = np.random.default_rng(0).normal(0, 3, (5, 7))
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = Target.parse("elbow").log_odds({"pred2": scores})
    np.testing.assert_allclose(found, np.log(p[:, 5] / (1 - p[:, 5])))


@pytest.mark.parametrize("size", [1, 1000])
def test_the_direction_is_the_gradient_of_the_log_odds_however_sure_the_model_is(size):
    scores, target = np.random.default_rng(0).normal(0, size, 7), Target.parse("elbow")
    scores[5] = 3 * size
    step = 1e-6 * np.eye(7)
    odds = target.log_odds({"pred2": np.concatenate([scores + step, scores - step])})
    np.testing.assert_allclose(target.direction(scores), (odds[:7] - odds[7:]) / 2e-6, atol=1e-5)


def test_cam_is_refused_where_more_than_one_layer_follows(bright_model, demo):
    image = np.random.default_rng(0).random((1, 64, 64), np.float32)
    target = Target.parse("abnormal")
    plain = Explainer(open_engine(bright_model(), threads=1))
    maps = [plain(image, method, target).values for method in ("cam", "gradcam", "hirescam")]
    for found in maps[1:]:
        np.testing.assert_allclose(found / found.max(), maps[0] / maps[0].max(), atol=1e-5)
    with pytest.raises(ModelError, match="hirescam"):
        Explainer(open_engine(bright_model(hidden=True), threads=1))(image, "cam", target)


@pytest.mark.parametrize("kind", ["Mul", "Add"])
@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1), (1,)])
def test_a_constant_of_any_shape_counts_for_each_channel(tiny_model, tmp_path, kind, shape):
    from onnx import helper, numpy_helper

    def changed(model):
        values = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, "constant"))
        model.graph.node.insert(3, helper.make_node(kind, ["pooled", "constant"], ["changed"]))
        model.graph.node[4].input[0] = "changed"

    path = tiny_model(tmp_path / "m.onnx", edit=changed)
    image = np.random.default_rng(0).random((1, 32, 32), np.float32)
    tail = Tail.read(path)
    found = open_engine(path, precision="f32", threads=1).run(image[None])["pred1"][0]
    np.testing.assert_allclose(tail.scores(tail.features(image), "pred1"), found, rtol=1e-4, atol=1e-5)


def test_cam_is_refused_where_cells_have_weights_of_their_own(tiny_model, tmp_path):
    from onnx import numpy_helper

    def flat(model):
        rng = np.random.default_rng(0)
        for tensor in model.graph.initializer:
            if tensor.name.startswith("head"):
                shape = (8 * 16 * 16, tensor.dims[1])
                tensor.CopyFrom(numpy_helper.from_array(rng.normal(0, 1, shape).astype(np.float32), tensor.name))
        model.graph.node[3].input[0] = "active"
        del model.graph.node[2]

    engine = open_engine(tiny_model(tmp_path / "m.onnx", edit=flat), threads=1)
    with pytest.raises(ModelError, match="behind a global average"):
        Explainer(engine).require("cam", Target.parse("abnormal"))


def test_a_tail_that_cannot_be_read_names_what_stands_in_the_way(tiny_model, tmp_path):
    from onnx import helper

    def tangent(model):
        node = next(node for node in model.graph.node if node.output[0] == "pred1")
        node.output[0] = "before"
        model.graph.node.append(helper.make_node("Tanh", ["before"], ["pred1"]))

    with pytest.raises(ModelError, match=r"Tanh.*rise"):
        Tail.read(tiny_model(tmp_path / "m.onnx", edit=tangent))
