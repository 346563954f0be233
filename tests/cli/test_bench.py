"""`mskscreen bench`: a table that can be pasted, with figures that can be true."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from openvino import opset13 as ops

from mskscreen.cli import main
from mskscreen.inference.speed import gemm_peak, operations


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    def command(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mskscreen", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert not caught.value.code
        return capsys.readouterr().out

    return command


def test_every_engine_and_batch_is_a_row_that_adds_up(run: Callable, model: Path) -> None:
    rows = json.loads(run(model, "--batch", "1,3", "--seconds", "0.02", "--threads", 1, "--format", "json"))
    assert {(row["engine"], row["batch"]) for row in rows} == {
        (engine, batch) for engine in ("openvino", "onnxruntime") for batch in (1, 3)
    }
    assert {"f32"} <= {row["precision"] for row in rows}
    for row in rows:
        assert row["images/s"] > 0
        assert row["share of peak"] >= 0


def test_a_graph_of_fixed_batch_is_measured_at_that(run: Callable, tmp_path: Path, tiny_model: Callable) -> None:
    path = tiny_model(tmp_path / "m.onnx", batch=1)  # of which its contract says nothing
    rows = json.loads(run(path, "--batch", 8, "--seconds", "0.02", "--threads", 1, "--format", "json"))
    assert {(row["engine"], row["batch"]) for row in rows} == {("openvino", 1), ("onnxruntime", 1)}


def test_what_openvino_compiles_for_a_measurement_is_not_kept(
    run: Callable, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSKSCREEN_CACHE", str(tmp_path / "cache"))
    run(model, "--batch", 1, "--seconds", "0.02", "--threads", 1)
    assert not (tmp_path / "cache").exists()


def test_the_table_is_markdown_and_says_which_machine(run: Callable, model: Path) -> None:
    head, _, *table = run(model, "--batch", 1, "--seconds", 0.02).splitlines()
    assert re.search(r"threads, load average .*openvino \d", head)
    assert len({line.count("|") for line in table}) == 1
    assert len({len(line) for line in table}) == 1
    assert set(table[1]) == {"|", "-"}


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.data_location = onnx.TensorProto.EXTERNAL


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (None, "not an ONNX file"),
        ({"edit": external}, "external files, which are refused"),
        ({"contract": None}, "holds no contract"),
        ({"drop": ("map",)}, "no engine could run it"),
    ],
)
def test_a_file_that_cannot_be_measured_is_one_clear_error(
    tmp_path: Path,
    tiny_model: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    make: Any,
    said: str,
) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("no model")
    if make is not None:
        tiny_model(path, **make)
    monkeypatch.setattr(sys, "argv", ["mskscreen", "bench", str(path), "--seconds", "0.02"])
    with pytest.raises(SystemExit) as caught:
        main.run()
    (error,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 1
    assert error.startswith(f"error: {path}: ")
    assert said in error


def test_a_model_that_cannot_be_measured_does_not_take_the_others_with_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_text("no model")
    options = ["--batch", "1", "--seconds", "0.02", "--threads", "1", "--format", "json"]
    monkeypatch.setattr(sys, "argv", ["mskscreen", "bench", str(model), str(broken), str(model), *options])
    with pytest.raises(SystemExit) as caught:
        main.run()
    printed = capsys.readouterr()
    assert caught.value.code == 3
    assert [row["engine"] for row in json.loads(printed.out)] == ["openvino", "onnxruntime"] * 2
    assert printed.err.startswith(f"error: {broken}: not an ONNX file")


def test_operations_are_counted_as_the_layers_define_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = ops.parameter([-1, 4, 10, 12], np.float32, "image")

    def weights(*shape: int) -> openvino.Node:
        return ops.constant(rng.random(shape, np.float32))

    one = ops.convolution(image, weights(6, 4, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
    two = ops.group_convolution(one, weights(6, 1, 1, 5, 5), [1, 1], [2, 2], [2, 2], [1, 1])
    flat = ops.reduce_mean(two, ops.constant(np.array([2, 3])), False)
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model([ops.matmul(flat, weights(7, 6), False, True)], [image]), path)
    assert operations(path) == 2 * 120 * (6 * 4 * 9 + 6 * 25) + 2 * 6 * 7


def test_a_peak_is_measured_in_every_precision() -> None:
    for precision in ("f32", "int8"):
        assert 1e8 < gemm_peak(precision, 1, 0.01) < 1e14
