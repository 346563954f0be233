"""Both engines keep the same promises, and refuse in the same words."""

import contextlib
import multiprocessing
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from mskscreen.contract import Gate, ModelContract, Novelty
from mskscreen.errors import ModelError, MskscreenError
from mskscreen.inference import open_engine
from mskscreen.inference.backends import OpenVino

ENGINES = ("openvino", "onnxruntime")
both = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((8, 1, 32, 32), np.float32)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@both
def test_a_batch_of_eight_is_eight_singles(tmp_path: Path, tiny_model: Callable, engine: Any, images: Any) -> None:
    opened = open_engine(tiny_model(tmp_path / "m.onnx"), engine)
    singles = [opened.run(images[i : i + 1]) for i in range(8)]
    together = {name: np.concatenate([single[name] for single in singles]) for name in singles[0]}
    assert same(opened.run(images), together)
    assert {name: value.shape for name, value in together.items()} == {
        "pred1": (8, 2),
        "pred2": (8, 7),
        "map": (8, 1, 16, 16),
    }


@both
@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_gives_the_same_as_a_dynamic_one(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, engine: Any, images: Any, batch: int
) -> None:
    fixed = tiny_model(tmp_path / "fixed.onnx", batch=batch, contract=tiny_contract(batch=batch))
    dynamic = open_engine(tiny_model(tmp_path / "dynamic.onnx"), engine).run(images)
    for name, value in open_engine(fixed, engine).run(images).items():
        np.testing.assert_allclose(value, dynamic[name], rtol=1e-5, atol=1e-6)


def test_the_engines_agree(tmp_path: Path, tiny_model: Callable, images: Any) -> None:
    path = tiny_model(tmp_path / "m.onnx")
    one, other = (open_engine(path, engine, "f32").run(images) for engine in ENGINES)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)


@both
def test_runs_that_overlap_do_not_mix(tmp_path: Path, tiny_model: Callable, engine: Any, images: Any) -> None:
    opened = open_engine(tiny_model(tmp_path / "m.onnx"), engine)
    expected = opened.run(images)["pred1"]
    under_way = [opened.start(images[i : i + 1]) for i in range(8)]
    found = {i: under_way[i]()["pred1"][0] for i in reversed(range(8))}
    assert np.array_equal(expected, np.stack([found[i] for i in range(8)]))


@both
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_told_to_open_the_model_itself(
    tmp_path: Path, tiny_model: Callable, engine: Any, images: Any
) -> None:
    opened = open_engine(tiny_model(tmp_path / "m.onnx"), engine)
    opened.run(images)

    def refused() -> None:
        with pytest.raises(ModelError, match="was opened in another process"):
            opened.run(images)

    child = multiprocessing.get_context("fork").Process(target=refused)
    child.start()
    child.join(60)
    child.kill()  # one that waits for threads that it does not have
    assert child.exitcode == 0
    assert opened.run(images)


@both
def test_a_foreign_model_is_described_by_a_file_beside_it(
    tmp_path: Path, tiny_model: Callable, engine: Any, images: Any
) -> None:
    def rename(model: Any) -> None:
        model.graph.input[0].name = model.graph.node[0].input[0] = "data:0"

    path = tiny_model(tmp_path / "m.onnx", contract=None, batch=1, drop=("map",), edit=rename)
    path.with_suffix(".toml").write_text(
        'name = "foreign"\narchitecture = "x"\ninput_size = [32, 32]\nbatch = 1\n'
        'preprocessing = "decode|grayscale|resize(32,32,bilinear,antialias)|unit"\n'
    )
    opened = open_engine(path, engine)
    assert opened.contract.name == "foreign"
    assert set(opened.run(images)) == {"pred1", "pred2"}


@both
def test_a_batch_that_the_graph_does_not_take_is_an_error_of_the_model(
    tmp_path: Path, tiny_model: Callable, engine: Any, images: Any
) -> None:
    opened = open_engine(tiny_model(tmp_path / "m.onnx", batch=1), engine)
    assert (opened.contract.batch, opened.fixed_batch) == (None, 1)
    with pytest.raises(ModelError, match=r"m\.onnx: .* cannot run this model"):
        opened.backend.start(images)()


@both
@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 1, 16, 32), (0, 1, 32, 32)])
def test_images_of_another_shape_are_refused(
    tmp_path: Path, tiny_model: Callable, engine: Any, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ModelError, match="expected images of shape"):
        open_engine(tiny_model(tmp_path / "m.onnx"), engine).run(np.zeros(shape, np.float32))


def approved(make: Callable, **passed: bool) -> ModelContract:
    return make(approved={key.replace("_", "/"): Gate(value, {"studies": 100.0}) for key, value in passed.items()})


def test_bf16_runs_only_where_its_gate_passed(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable
) -> None:
    def opened(contract: ModelContract, *arguments: Any, **options: Any) -> str:
        return open_engine(tiny_model(tmp_path / "m.onnx", contract=contract), *arguments, **options).precision

    never, failed = tiny_contract(), approved(tiny_contract, openvino_bf16=False)
    elsewhere, passed = approved(tiny_contract, onnxruntime_bf16=True), approved(tiny_contract, openvino_bf16=True)
    assert [opened(c, "openvino") for c in (never, failed, elsewhere)] == ["f32"] * 3
    assert opened(passed, "onnxruntime") == "f32"
    with pytest.raises(ModelError, match="bf16"):
        opened(passed, "onnxruntime", "bf16")
    if "bf16" not in OpenVino.precisions():
        assert opened(passed, "openvino") == "f32"
        return
    assert opened(passed, "openvino") == "bf16"
    assert opened(never, "openvino", "bf16", unapproved=True) == "bf16"
    for contract in (never, failed, elsewhere):
        with pytest.raises(ModelError, match=r"openvino/bf16 (was not gated|failed its gate)"):
            opened(contract, "openvino", "bf16")


def test_f32_is_f32_to_the_last_digits(tmp_path: Path, tiny_model: Callable, images: Any) -> None:
    weights = np.random.default_rng(7).normal(0, 1, (8, 1, 5, 5)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (2, 3))[:, 0, ::2, ::2]
    pooled = np.maximum(np.einsum("nhwij,cij->nchw", windows, weights[:, 0]), 0).mean((2, 3))
    head = np.random.default_rng(7)
    head.normal(0, 1, (8, 1, 5, 5))
    expected = pooled @ head.normal(0, 2, (8, 2))
    for engine in ENGINES:
        found = open_engine(tiny_model(tmp_path / "m.onnx"), engine, "f32").run(images)["pred1"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@both
def test_a_promised_novelty_is_given(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, engine: Any, images: Any
) -> None:
    def distance(model: Any) -> None:
        model.graph.node.append(helper.make_node("ReduceL2", ["flat"], ["novelty"], axes=[1], keepdims=0))
        model.graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))

    contract = tiny_contract(novelty=Novelty("l2", 1.0, 0.99))
    path = tiny_model(tmp_path / "m.onnx", contract=contract, edit=distance)
    assert open_engine(path, engine).run(images)["novelty"].shape == (8,)
    with pytest.raises(ModelError, match="novelty"):
        open_engine(tiny_model(tmp_path / "without.onnx", contract=contract), engine)


def test_compiled_models_are_kept_apart_by_content_and_a_damaged_one_is_made_again(
    tmp_path: Path, tiny_model: Callable, monkeypatch: pytest.MonkeyPatch, images: Any
) -> None:
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / "cache"))
    path = tiny_model(tmp_path / "m.onnx")
    expected = open_engine(path, "openvino").run(images)
    (blob,) = (tmp_path / "cache").rglob("*.blob")
    assert stat.S_IMODE(blob.parent.stat().st_mode) & 0o077 == 0
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:100])
    assert same(open_engine(path, "openvino").run(images), expected)


def test_a_cache_that_another_process_clears_is_no_obstacle(
    tmp_path: Path, tiny_model: Callable, monkeypatch: pytest.MonkeyPatch, images: Any
) -> None:
    """Of two that start at once, one may take what the other is writing for damaged, and remove it."""
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / "cache"))
    path = tiny_model(tmp_path / "m.onnx")
    expected = open_engine(path, "openvino").run(images)
    (blob,) = (tmp_path / "cache").rglob("*.blob")
    blob.unlink()
    done = threading.Event()

    def clear() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(blob)  # noqa: PTH108 - as fast as can be

    other = threading.Thread(target=clear)
    other.start()
    try:
        for _ in range(20):
            assert same(open_engine(path, "openvino").run(images), expected)
    finally:
        done.set()
        other.join()


def test_an_unwritable_cache_is_no_obstacle(
    tmp_path: Path, tiny_model: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / "file"))
    engine = open_engine(tiny_model(tmp_path / "m.onnx"), "openvino")
    height, width = engine.contract.input_size
    assert engine.run(np.zeros((1, 1, height, width), np.float32))["pred1"].shape == (1, 2)


@pytest.mark.parametrize(("engine", "precision"), [("torch", "f32"), ("auto", "int3")])
def test_an_unknown_engine_or_precision_is_refused_by_name(
    tmp_path: Path, tiny_model: Callable, engine: Any, precision: Any
) -> None:
    with pytest.raises(MskscreenError, match=r"torch|int3"):
        open_engine(tiny_model(tmp_path / "m.onnx"), engine, precision)
