"""A precision runs where its gate passed on this kind of machine, is refused elsewhere, flagged where forced."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app
from mskscreen.contract import METADATA_KEY, Calibration, Gate, ModelContract, Variant, gate_key
from mskscreen.errors import ModelError
from mskscreen.inference import Screener, open_engine
from mskscreen.inference.machine import machine_kind
from mskscreen.inference.onnx_file import write_metadata
from mskscreen.inference.verify import FAILED, OK, verify
from mskscreen.predictions import FLAG_UNAPPROVED

HERE = machine_kind()
ENOUGH = {"studies": 100.0}


def gates(**passed: Any) -> dict[str, Gate]:
    """Gates of ONNX Runtime on this machine: `int8=True`, or `int8=(True, speed)`."""
    made = {}
    for precision, value in passed.items():
        ok, speed = value if isinstance(value, tuple) else (value, None)
        made[gate_key("onnxruntime", precision, HERE)] = Gate(ok, ENOUGH | ({"speed": speed} if speed else {}))
    return made


@pytest.fixture
def pair(tmp_path: Path, tiny_model: Callable, tiny_contract: Callable) -> Callable[..., Path]:
    """Write a model and, beside it, the file that plays its int8 weights: another graph, to tell them apart."""

    def make(approved: dict[str, Gate], **own: Any) -> Path:
        contract = tiny_contract(precision="int8", approved=approved, **own)

        def halve(model: Any) -> None:
            head = next(t for t in model.graph.initializer if t.name == "head1")
            head.raw_data = (np.frombuffer(head.raw_data, np.float32) / 2).tobytes()

        int8 = tiny_model(tmp_path / "m.int8.onnx", contract=contract, edit=halve)
        content = int8.read_bytes()
        variant = Variant("m.int8.onnx", len(content), hashlib.sha256(content).hexdigest())
        main = tiny_contract(approved=approved, variants={"int8": variant})
        return tiny_model(tmp_path / "m.onnx", contract=main)

    return make


def opened(path: Path, *arguments: Any, **options: Any) -> str:
    return open_engine(path, "onnxruntime", *arguments, **options).precision


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ({}, "f32"),
        ({"int8": False}, "f32"),
        ({"int8": True}, "int8"),
        ({"int8": (True, 1.7)}, "int8"),
        ({"int8": (True, 0.8)}, "f32"),
        ({"bf16": True}, "f32"),
    ],
)
def test_auto_is_the_fastest_that_passed_and_that_the_engine_computes_in(
    pair: Callable, passed: dict[str, Any], expected: str
) -> None:
    assert opened(pair(gates(**passed))) == expected


def test_a_gate_holds_for_its_engine_and_its_kind_of_machine_only(pair: Callable) -> None:
    elsewhere = {gate_key("onnxruntime", "int8", "riscv64"): Gate(True, ENOUGH)}
    other_engine = {gate_key("openvino", "int8", HERE): Gate(True, ENOUGH)}
    assert opened(pair(elsewhere)) == opened(pair(other_engine)) == "f32"
    assert opened(pair({"onnxruntime/int8": Gate(True, ENOUGH)})) == "int8"
    path = pair(elsewhere)
    said = (
        f"not gated on this kind of machine .{HERE.replace('+', '.')}.*mskscreen export {path} --precision int8 "
    )
    with pytest.raises(ModelError, match=said):
        opened(path, "int8")


def test_int8_runs_the_weights_of_the_file_beside_it_and_says_why(pair: Callable) -> None:
    path = pair(gates(int8=True))
    image = np.random.default_rng(0).random((1, 1, 32, 32), np.float32)
    slow, fast = open_engine(path, "onnxruntime", "f32"), open_engine(path, "onnxruntime")
    assert np.allclose(fast.run(image)["pred1"] * 2, slow.run(image)["pred1"], atol=1e-6)
    assert fast.path.name == "m.int8.onnx"
    assert fast.digest == hashlib.sha256(fast.path.read_bytes()).hexdigest() != slow.digest
    assert "passed its gate" in fast.why
    assert fast.contract == slow.contract


def test_a_failed_precision_is_refused_unless_forced_and_then_flags_every_row(
    pair: Callable, tmp_path: Path
) -> None:
    path = pair(gates(int8=False))
    with pytest.raises(ModelError, match=r"onnxruntime/int8 failed its gate.*--force-precision") as refused:
        opened(path, "int8")
    assert "mskscreen export" not in str(refused.value)  # the same gate would say the same again
    (tmp_path / "bad.png").write_bytes(b"no image")
    sources = [np.full((40, 40), 90, np.uint8), tmp_path / "bad.png"]
    forced = Screener.load(path, engine="onnxruntime", precision="int8", unapproved=True)
    assert [FLAG_UNAPPROVED in row.flags for row in forced.predict(sources)] == [True, True]
    assert "failed its gate" in forced.engine.why
    asked = Screener.load(pair(gates(int8=True)), engine="onnxruntime", precision="int8", unapproved=True)
    assert not any(FLAG_UNAPPROVED in row.flags for row in asked.predict(sources))


def test_a_gate_of_older_versions_on_fewer_studies_approves_nothing(pair: Callable) -> None:
    image = np.full((40, 40), 90, np.uint8)
    for measures, count in (({"studies": 99.0}, 99), ({}, 0)):
        path = pair({gate_key("onnxruntime", "int8", HERE): Gate(True, measures)})
        assert opened(path) == "f32"
        with pytest.raises(ModelError, match=f"int8 was gated on {count} of 100 studies.*--force-precision"):
            opened(path, "int8")
        forced = Screener.load(path, engine="onnxruntime", precision="int8", unapproved=True)
        assert forced.engine.why == f"forced: int8 was gated on {count} of 100 studies"
        (row,) = forced.predict(image)
        assert FLAG_UNAPPROVED in row.flags


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "said"),
    [(Path.unlink, "missing"), (damaged, "is not the file"), (lambda p: p.write_bytes(b""), "is not the file")],
)
def test_a_variant_that_is_not_the_one_named_is_left_alone(pair: Callable, harm: Callable, said: str) -> None:
    path = pair(gates(int8=True))
    harm(path.with_name("m.int8.onnx"))
    assert opened(path) == "f32"
    with pytest.raises(ModelError, match=said):
        opened(path, "int8")


def test_a_missing_variant_fails_the_check_of_the_model(pair: Callable) -> None:
    path = pair(gates(int8=True))
    for outcome in (OK, FAILED):
        (check,) = [check for check in verify(path) if check.check == "file of int8"]
        assert check.outcome == outcome
        path.with_name("m.int8.onnx").unlink(missing_ok=True)
    assert "put m.int8.onnx into the same folder" in check.found
    assert CliRunner().invoke(app, ["model", "verify", str(path)]).exit_code == 3


def test_a_variant_of_another_calibration_is_left_alone(pair: Callable) -> None:
    path = pair(gates(int8=True), calibration=Calibration(2.0, 1.0))
    assert opened(path) == "f32"
    with pytest.raises(ModelError, match="its contract is not that of"):
        opened(path, "int8")
    (check,) = [check for check in verify(path) if check.check == "file of int8"]
    assert (check.outcome, "its contract is not that of m.onnx" in check.found) == (FAILED, True)


def test_a_file_of_int8_alone_needs_its_gate(pair: Callable) -> None:
    approved, failed = pair(gates(int8=True)).with_name("m.int8.onnx"), gates(int8=False)
    assert opened(approved) == "int8"
    with pytest.raises(ModelError, match="holds no f32 weights, only int8; use the f32 file"):
        opened(approved, "f32")
    path = pair(failed).with_name("m.int8.onnx")
    with pytest.raises(ModelError, match="failed its gate"):
        opened(path)


def test_force_takes_the_one_precision_of_a_file_and_asks_which_of_several(
    pair: Callable, write_png: Callable, tmp_path: Path
) -> None:
    path = pair(gates(int8=False))
    alone = path.with_name("m.int8.onnx")
    with pytest.raises(ModelError, match="holds f32, bf16, int8; say which to force with --precision"):
        opened(path, unapproved=True)
    image = str(write_png(tmp_path / "images" / "a.png"))

    def run(model: Path, *options: str) -> Any:
        arguments = ["predict", image, "--model", str(model), "--engine", "onnxruntime", "--format", "json"]
        return CliRunner().invoke(app, [*arguments, "--force-precision", *options])

    forced = run(alone)
    assert "onnxruntime/int8 (forced: int8 failed its gate)" in forced.stderr
    assert json.loads(forced.stdout)["images"][0]["flags"] == [FLAG_UNAPPROVED]
    assert run(path).exit_code == 2
    assert run(path, "--precision", "int8").exit_code == 0


def test_a_variant_may_not_lie_in_another_folder(tmp_path: Path, tiny_model: Callable, tiny_contract: Any) -> None:
    contract = tiny_contract(variants={"int8": Variant("x", 1, "")})
    path = tiny_model(tmp_path / "m.onnx", contract=contract)
    for name in ("../m.onnx", "/etc/passwd", "a\\\\b", ""):
        text = contract.to_json().replace('"file":"x"', f'"file":"{name}"')
        write_metadata(path, METADATA_KEY, text, path)
        with pytest.raises(Exception, match=r"variants\.int8\.file"):
            open_engine(path)


def test_new_fields_leave_the_digest_of_old_contracts_alone(tiny_contract: Callable) -> None:
    old = dataclasses.replace(tiny_contract(), schema=1)
    assert not {"precision", "variants", "selftest", "content_sha256"} & set(
        ModelContract.from_json(old.to_json()).to_json().split('"')
    )
    assert ModelContract.from_json(old.to_json()) == old
    new = tiny_contract(precision="int8", content_sha256="00")
    assert ModelContract.from_json(new.to_json()) == new


def test_predict_says_which_precision_it_took_and_why(pair: Callable, write_png: Callable, tmp_path: Path) -> None:
    image = str(write_png(tmp_path / "images" / "a.png"))

    def run(path: Path, *options: str) -> Any:
        arguments = ["predict", image, "--model", str(path), "--engine", "onnxruntime", "--format", "json"]
        return CliRunner().invoke(app, [*arguments, *options])

    passed = run(pair(gates(int8=True)))
    assert "onnxruntime/int8 (the fastest that passed its gate on this kind of machine)" in passed.stderr
    assert json.loads(passed.stdout)["model"]["precision"] == "int8"
    assert json.loads(passed.stdout)["images"][0]["flags"] == []
    path = pair(gates(int8=False))
    automatic = run(path)
    assert json.loads(automatic.stdout)["model"]["precision"] == "f32"
    assert automatic.stderr.startswith("model tiny: onnxruntime/f32 (int8 failed its gate)\n")
    assert "failed its gate" in str(run(path, "--precision", "int8").exception)
    forced = run(path, "--precision", "int8", "--force-precision")
    assert json.loads(forced.stdout)["images"][0]["flags"] == [FLAG_UNAPPROVED]
    assert "onnxruntime/int8 (forced: int8 failed its gate)" in forced.stderr
    ungated = run(pair({}))
    assert ungated.stderr.startswith("model tiny: onnxruntime/f32 (int8 was not gated)\n")
