"""The layers between the last feature map of a model and its scores, read from its graph.

They are few: a global pooling, linear layers, ReLUs. Read once, they give the gradient of any score with respect
to the feature map without a framework that differentiates, for foreign models as well as for our own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mskscreen.errors import ModelError
from mskscreen.inference.backends import reason_of

Array = npt.NDArray[np.floating]


class Step(NamedTuple):
    """One operation on one image: its value, and the gradient before it given its input and the gradient after."""

    kind: str
    value: Callable[[Array], Array]
    gradient: Callable[[Array, Array], Array]


class Tail:
    """Feature maps of a model and the gradients of its scores.

    Raises ModelError where a step between the feature map and the scores is none of those known here.
    """

    def __init__(self, model: Any, path: Path, threads: int = 1) -> None:
        """`model` is of `read_graph`; `path` is for messages."""
        import openvino

        self.steps: dict[str, list[Step]] = {}
        sources = set()
        for name in ("pred1", "pred2"):
            source, self.steps[name] = _walk(model.output(name).get_node(), path)
            sources.add(source)
        if len({(source.get_node().get_name(), source.get_index()) for source in sources}) != 1:
            raise ModelError(f"{path}: its two heads have no feature map in common; use the method rise")
        features = openvino.Model([sources.pop()], model.get_parameters(), "features")
        config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        try:
            self._features = openvino.Core().compile_model(features, "CPU", config)
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO cannot compile this model ({reason_of(error)})") from error

    @classmethod
    def read(cls, path: Path, threads: int = 1) -> Tail:
        """The tail of an ONNX file with outputs `pred1` and `pred2`."""
        return cls(read_graph(path), path, threads)

    def features(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The last feature map (d, h, w) of one model input (1, H, W)."""
        return np.array(self._features(image[None])[0][0])

    def scores(self, features: Array, output: str) -> Array:
        """Scores (k,) of a head for a feature map (d, h, w)."""
        return self._forward(features, output)[-1]

    def gradient(self, features: Array, output: str, direction: Array) -> npt.NDArray[np.float32]:
        """Gradient (d, h, w) of the scores of a head, weighted by `direction` (k,)."""
        values = self._forward(features, output)
        for step, before in zip(reversed(self.steps[output]), reversed(values[:-1]), strict=True):
            direction = step.gradient(before, direction)
        return np.asarray(direction, np.float32)

    def linear(self, output: str) -> bool:
        """Whether one linear map follows a global average, which plain CAM asks for."""
        kinds = {step.kind for step in self.steps[output]}
        return "average" in kinds and kinds <= {"average", "linear", "reshape"}

    def _forward(self, features: Array, output: str) -> list[Array]:
        values: list[Array] = [np.asarray(features, np.float64)]
        for step in self.steps[output]:
            values.append(step.value(values[-1]))
        return values


def read_graph(path: Path) -> Any:
    """The graph of an ONNX file as a model of OpenVINO, with what is computed from constants alone as constants.

    Raises ModelError.
    """
    import openvino
    from openvino.passes import ConstantFolding, Manager

    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot read this model ({reason_of(error)})") from error
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    return model


def _walk(result: Any, path: Path) -> tuple[Any, list[Step]]:
    """The output that is the last feature map, and the steps from there to `result`."""
    steps: list[Step] = []
    source = result.input_value(0)
    while not _is_feature_map(source):
        node = source.get_node()
        varying = [
            k for k in range(node.get_input_size()) if node.input_value(k).get_node().get_type_name() != "Constant"
        ]
        make = _STEPS.get(node.get_type_name())
        step = make(node, varying[0]) if make and len(varying) == 1 else None
        if step is None:
            raise ModelError(
                f"{path}: '{node.get_type_name()}' stands between its feature map and its scores, which this "
                "method cannot read; use the method rise or occlusion"
            )
        steps.append(step)
        source = node.input_value(varying[0])
    return source, steps[::-1]


def _is_feature_map(source: Any) -> bool:
    """Whether an output has four axes and is no part of generalised-mean pooling, whose powers come before it."""
    shape = source.get_partial_shape()
    spatial = shape.rank.is_static and len(shape) == 4 and shape[2].to_string() != "1"
    return bool(spatial) and source.get_node().get_type_name() != "Power"


def _constant(node: Any, varying: int) -> Array:
    found: Array = np.asarray(node.input_value(1 - varying).get_node().get_data(), np.float64)
    return found


def _beside(node: Any, varying: int) -> Array:
    """The constant of a sum or product, without the image's own axis where it has one."""
    found = _constant(node, varying)
    rank = node.output(0).get_partial_shape().rank
    return found[0] if rank.is_static and rank.get_length() == found.ndim else found


def _matmul(node: Any, varying: int) -> Step | None:
    if varying != 0:
        return None
    matrix = _constant(node, varying)
    if node.get_attributes().get("transpose_b"):
        matrix = matrix.T
    return Step("linear", lambda x: x @ matrix, lambda _, g: g @ matrix.T)


def _scale(node: Any, varying: int) -> Step:
    factor = _beside(node, varying)
    return Step("linear", lambda x: x * factor, lambda _, g: g * factor)


def _shift(node: Any, varying: int) -> Step:
    offset = _beside(node, varying)
    return Step("linear", lambda x: x + offset, lambda _, g: g)


def _relu(*_: Any) -> Step:
    return Step("relu", lambda x: np.maximum(x, 0), lambda x, g: np.where(x > 0, g, 0))


def _power(node: Any, varying: int) -> Step | None:
    if varying != 0:
        return None
    exponent = float(_constant(node, varying).reshape(-1)[0])
    return Step("power", lambda x: x**exponent, lambda x, g: g * exponent * x ** (exponent - 1))


def _reshape(node: Any, varying: int) -> Step | None:
    shape = node.output(0).get_partial_shape()
    if varying != 0 or shape.rank.is_dynamic:
        return None
    # The image's own axis is left out; sizes that are not known follow from the rest.
    sizes = [d.get_length() if d.is_static else -1 for d in list(shape)[1:]]
    return Step("reshape", lambda x: x.reshape(sizes), lambda x, g: g.reshape(x.shape))


def _average(node: Any, varying: int) -> Step | None:
    axes = sorted(int(axis) % 4 for axis in _constant(node, varying).reshape(-1)) if varying == 0 else []
    if axes != [2, 3]:
        return None
    keep = bool(node.get_attributes().get("keep_dims"))
    return Step(
        "average",
        lambda x: x.mean(axis=(1, 2), keepdims=keep),
        lambda x, g: np.broadcast_to(g.reshape(-1, 1, 1) / (x.shape[1] * x.shape[2]), x.shape),
    )


_STEPS: dict[str, Callable[[Any, int], Step | None]] = {
    "MatMul": _matmul,
    "Multiply": _scale,
    "Add": _shift,
    "Relu": _relu,
    "Power": _power,
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "ReduceMean": _average,
}
