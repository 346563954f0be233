"""OpenVINO and ONNX Runtime behind the same three members; imported only when a model is opened."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mskscreen.errors import ModelError
from mskscreen.storage import cache_folder

log = logging.getLogger(__name__)
Outputs = dict[str, np.ndarray]
# What ONNX Runtime says beside its reason: a code, the file, and a place in its source with the function's types.
_BESIDE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|\S+\.(h|cc):\d+ \S[^()]*\(.*?\) "
)
_NEWER = {
    "operator set": re.compile(r"Opset (\d+) is under development.* till opset (\d+)"),
    "IR version": re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
}
_NO_MEMORY = re.compile(r"bad_alloc|Failed to allocate")
Shape = tuple[int | None, ...] | None  # None stands for what is dynamic: a dimension, or the rank


class Backend(Protocol):
    """A compiled model: its shapes, how many runs fill the machine, and starting one of them."""

    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    parallel: int

    def start(self, batch: np.ndarray) -> Callable[[], Outputs]:
        """Begin one run; the call that is returned waits for it and gives copies of all outputs."""


class OpenVino:
    """A model compiled by OpenVINO for the CPU, with one stream for about every core; kept if it has a digest.

    `types` are the element types of its ports: `f32`, or what the engine calls another.
    """

    def __init__(self, path: Path, digest: str | None, precision: str, threads: int) -> None:
        import openvino

        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            # Of an int8 model it is what the layers compute in that are not quantised.
            "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
            "INFERENCE_NUM_THREADS": threads,
        }
        if digest:
            # OpenVINO knows a cached blob by the file's name and time: a folder for each content is safer.
            cache = cache_folder() / "openvino" / digest[:16]
            try:
                cache.mkdir(parents=True, exist_ok=True, mode=0o700)
                config["CACHE_DIR"] = str(cache)
            except OSError as error:
                log.warning("compiled models are not kept: the cache folder cannot be made (%s)", error.strerror)
        try:
            try:
                self._model = openvino.Core().compile_model(str(path), "CPU", config)
            except RuntimeError:
                # Two processes that start at once may disturb each other in the cache.
                if config.pop("CACHE_DIR", None) is None:
                    raise
                self._model = openvino.Core().compile_model(str(path), "CPU", config)
        except RuntimeError as error:
            raise ModelError(f"{path}: OpenVINO cannot compile this model ({reason_of(error)})") from error
        self._path = path
        self._idle: deque[Any] = deque()
        self.inputs: Mapping[str, Shape] = {port.any_name: _openvino_shape(port) for port in self._model.inputs}
        # Tensors that OpenVINO finds to be the same become one output with several names.
        self.outputs: Mapping[str, Shape] = {
            name: _openvino_shape(port) for port in self._model.outputs for name in port.names
        }
        self.types = {
            name: port.get_element_type().get_type_name()
            for port in (*self._model.inputs, *self._model.outputs)
            for name in port.names
        }
        self.parallel = int(self._model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    @staticmethod
    def precisions() -> set[str]:
        """Precisions that this processor computes in."""
        import openvino

        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return {"f32", "int8", *({"bf16"} if "BF16" in capabilities else ())}

    def start(self, batch: np.ndarray) -> Callable[[], Outputs]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        with self._errors():
            request.start_async({0: batch}, share_inputs=True)

        def finish() -> Outputs:
            with self._errors():
                request.wait()
            assert batch.size  # noqa: S101 - shared with the request: it must live until the run has ended
            results = {name: request.get_tensor(name).data.copy() for name in self.outputs}
            self._idle.append(request)
            return results

        return finish

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise ModelError(f"{self._path}: OpenVINO cannot run this model ({reason_of(error)})") from error


class OnnxRuntime:
    """A session of ONNX Runtime on the CPU: single-threaded runs, as many at a time as there are threads.

    `types` are as in `OpenVino`.
    """

    def __init__(self, path: Path, digest: str | None, precision: str, threads: int) -> None:  # noqa: ARG002
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised, and told once
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise ModelError(f"{path}: ONNX Runtime cannot load this model ({reason_of(error)})") from error
        self._path = path
        self._pool = ThreadPoolExecutor(threads, "onnxruntime")
        self.inputs: Mapping[str, Shape] = {
            node.name: _onnxruntime_shape(node.shape) for node in self._session.get_inputs()
        }
        self.outputs: Mapping[str, Shape] = {
            node.name: _onnxruntime_shape(node.shape) for node in self._session.get_outputs()
        }
        self.types = {
            node.name: "f32" if node.type == "tensor(float)" else str(node.type)
            for node in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        self.parallel = threads

    @staticmethod
    def precisions() -> set[str]:
        """Precisions that its CPU kernels compute in."""
        return {"f32", "int8"}

    def start(self, batch: np.ndarray) -> Callable[[], Outputs]:
        return self._pool.submit(self._run, batch).result

    def _run(self, batch: np.ndarray) -> Outputs:
        names = list(self.outputs)
        try:
            values = self._session.run(names, {next(iter(self.inputs)): batch})
        except Exception as error:
            raise ModelError(f"{self._path}: ONNX Runtime cannot run this model ({reason_of(error)})") from error
        return dict(zip(names, values, strict=True))


BACKENDS: dict[str, type[OpenVino] | type[OnnxRuntime]] = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}


def _openvino_shape(port: Any) -> Shape:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return tuple(dimension.get_length() if dimension.is_static else None for dimension in shape)


def _onnxruntime_shape(shape: Any) -> Shape:
    return tuple(dimension if isinstance(dimension, int) else None for dimension in shape)


def reason_of(error: Exception) -> str:
    """The last line of an engine's message, which says what is wrong, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    last = lines[-1][:2000]
    for what, pattern in _NEWER.items():
        if newer := pattern.search(last):
            known = f"is newer than {newer[2]}, the last that is known"
            return f"its {what} {newer[1]} {known}; update the engine or choose another"
    if _NO_MEMORY.search(last):
        return "it asks for more memory than can be had"
    return _BESIDE.sub("", last)[:300]
