"""What this machine gives: images a second of a model, and how much of what its processor can multiply that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mskscreen.errors import ModelError
from mskscreen.inference.engines import Engine
from mskscreen.inference.order import in_order
from mskscreen.inference.tail import read_graph

# Edge of the square matrices that the peak is measured with: large enough that memory does not matter.
_EDGE = 1536


def operations(path: Path) -> float:
    """Operations of one image in convolutions and matrix products; a multiplication and an addition are two.

    Raises ModelError.
    """
    model = read_graph(path)
    (image,) = model.inputs
    try:
        model.reshape({image.any_name: [1, *(size.get_length() for size in image.get_partial_shape()[1:])]})
    except RuntimeError as error:
        raise ModelError(f"{path}: has no fixed size of image, so its operations cannot be counted") from error
    return float(sum(map(_operations_of, model.get_ops())))


def _operations_of(node: Any) -> int:
    kind = node.get_type_name()
    if kind not in ("Convolution", "GroupConvolution", "MatMul"):
        return 0
    made, weights = node.get_output_shape(0), list(node.get_input_shape(1))
    if kind == "MatMul":
        inner = node.get_input_shape(0)[-2 if node.get_attributes()["transpose_a"] else -1]
    else:  # (out, in, *kernel), with the number of groups before it in a convolution of groups
        inner = int(np.prod(weights[1:] if kind == "Convolution" else weights[2:]))
    return 2 * int(np.prod(made)) * int(inner)


def gemm_peak(precision: str, threads: int, seconds: float) -> float:
    """Operations a second of a product of large matrices in `f32`, `bf16` or `int8`, the best of several runs."""
    import openvino
    from openvino import opset13 as ops

    left = ops.parameter([_EDGE, _EDGE], np.float32)
    values = np.random.default_rng(0).integers(-127, 128, (_EDGE, _EDGE)).astype(np.int8)
    right = ops.multiply(ops.convert(ops.constant(values), np.float32), ops.constant(np.float32(1 / 127)))
    first: Any = left
    if precision == "int8":
        ends = [ops.constant(np.float32(end)) for end in (-1.0, 127 / 128)]
        first = ops.fake_quantize(left, *ends, *ends, 256)
    else:
        right = ops.constant(values.astype(np.float32) / 127)
    model = openvino.Model([ops.matmul(first, right, False, True)], [left])
    hint = "f32" if precision == "int8" else precision
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    matrix = np.random.default_rng(1).random((_EDGE, _EDGE), np.float32)
    spent = [0.0]
    request.infer({0: matrix})
    while sum(spent) < seconds:
        start = time.perf_counter()
        request.infer({0: matrix}, share_inputs=True)
        spent.append(time.perf_counter() - start)
    return 2 * _EDGE**3 / min(spent[1:])


def images_a_second(engine: Engine, batch: int, seconds: float) -> float:
    """Images a second in runs of `batch` images, as many under way as fill the machine. Raises ModelError."""
    images = np.random.default_rng(0).random((batch, 1, *engine.contract.input_size), np.float32)

    def start(_: int) -> Callable[[], Any]:
        return engine.backend.start(images)

    def until(end: float) -> Iterator[int]:
        while time.perf_counter() < end:
            yield 0

    list(in_order(range(engine.depth), start, engine.depth))
    begin = time.perf_counter()
    runs = sum(1 for _ in in_order(until(begin + seconds), start, engine.depth))
    return runs * batch / (time.perf_counter() - begin)


def latency(engine: Engine, seconds: float) -> float:
    """Median seconds of one image when nothing else is under way."""
    image = np.random.default_rng(0).random((1, 1, *engine.contract.input_size), np.float32)
    engine.run(image)
    spent: list[float] = []
    while sum(spent) < seconds:
        start = time.perf_counter()
        engine.run(image)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))
