"""Several models as one: what `predict --model a --model b` gives is the mean of what each gives."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mskscreen.cli import main
from mskscreen.contract import Provenance
from mskscreen.errors import ModelError
from mskscreen.inference import Screener
from mskscreen.inference.ensemble import Ensemble
from mskscreen.predictions import Predictions, softmax

AGREE = {"rel": 1e-5, "abs": 1e-7}


@pytest.fixture
def models(tmp_path: Path, tiny_model: Callable, tiny_contract: Callable) -> list[Path]:
    """Two models of unlike weights, input sizes being the same, and unlike thresholds."""

    def other(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))

    contract = tiny_contract(name="other", operating_points={"balanced": 0.3, "sensitive": 0.1})
    return [
        tiny_model(tmp_path / "a.onnx"),
        tiny_model(tmp_path / "b.onnx", contract=contract, edit=other),
    ]


@pytest.fixture
def images(tmp_path: Path, write_png: Callable) -> list[Path]:
    """Four radiographs, the third of them corrupt."""
    paths = [write_png(tmp_path / "in" / f"{k}.png", k) for k in range(4)]
    paths[2].write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return paths


def _predict(images: list[Path], models: list[Path], out: Path, monkeypatch: pytest.MonkeyPatch) -> Predictions:
    options = [text for model in models for text in ("--model", str(model))]
    command = ["mskscreen", "predict", *map(str, images), *options, "-o", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main.run()
    assert caught.value.code == 3
    return Predictions.read(out)


def test_predict_averages_the_probabilities_of_its_models(
    models: list[Path], images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _predict(images, models, tmp_path / "out.json", monkeypatch)
    alone = [Screener.load(model).predict(images) for model in models]
    assert [row.error is None for row in table] == [True, True, False, True]
    assert [row.file for row in table] == [row.file for row in alone[0]]
    assert any(abs(a.p_abnormal - b.p_abnormal) > 0.05 for a, b in zip(*alone, strict=True) if a.p_abnormal)
    for row, *singles in zip(table, *alone, strict=True):
        if row.error:
            continue
        assert row.p_abnormal == pytest.approx(np.mean([s.p_abnormal for s in singles]), **AGREE)
        assert row.p_joint == pytest.approx(np.mean([s.p_joint for s in singles], axis=0), **AGREE)
        assert row.abnormal == (row.p_abnormal >= 0.4)
        assert softmax(np.array(row.pred1))[1] == pytest.approx(row.p_abnormal)
        assert softmax(np.array(row.pred2)) == pytest.approx(row.p_joint)
    assert table.threshold == pytest.approx(0.4)
    assert [member["name"] for member in table.model["members"]] == ["tiny", "other"]


def test_a_model_named_twice_weighs_twice_and_runs_once(models: list[Path], images: list[Path]) -> None:
    first, second = (Screener.load(model) for model in models)
    ensemble = Ensemble([first, second, Screener.load(models[0])])
    assert (len(ensemble.screeners), ensemble.weights) == (2, [2, 1])
    for row, a, b in zip(ensemble.stream(images), first.predict(images), second.predict(images), strict=True):
        if row.error is None:
            assert row.p_abnormal == pytest.approx((2 * a.p_abnormal + b.p_abnormal) / 3, **AGREE)


def test_only_points_that_all_members_have_can_be_asked_for(
    models: list[Path], images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert list(Ensemble.load(models).operating_points) == ["balanced", "sensitive"]
    arguments = ["mskscreen", "predict", str(images[0]), "--model", str(models[0]), "--model", str(models[1])]
    for more, said in (["--at", "specific"], "operating point"), (["--maps", "maps"], "evidence map"):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as caught:
            main.run()
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ModelError, match="at least two"):
        Ensemble.load(models[:1])


def test_another_weight_of_a_member_is_another_model(models: list[Path]) -> None:
    one, two = Ensemble.load(models), Ensemble.load([*models, models[0]])
    assert one.describe()["sha256"] != two.describe()["sha256"]


def test_a_table_names_the_engines_of_all_members(models: list[Path]) -> None:
    engines: tuple[Any, ...] = ("openvino", "onnxruntime")
    members = [Screener.load(model, engine=engine) for model, engine in zip(models, engines, strict=True)]
    assert Ensemble(members).describe()["engine"] == "onnxruntime, openvino"


def test_only_models_that_are_known_to_be_the_same_count_as_one(models: list[Path]) -> None:
    first, second = (Screener.load(model) for model in models)

    def changed(screener: Screener, **fields: Any) -> Screener:
        return Screener(replace(screener.engine, **fields))

    same = changed(first)
    for other in (
        changed(first, contract=second.engine.contract),
        changed(first, precision="another"),
    ):
        assert Ensemble([first, other, same]).weights == [2, 1]
    without = [changed(screener, digest="") for screener in (first, first)]
    assert Ensemble(without).weights == [1, 1]


def test_each_task_is_averaged_over_the_members_that_learned_it(
    tmp_path: Path, tiny_model: Callable, tiny_contract: Callable, images: list[Path]
) -> None:
    def learned(tasks: str, **fields: Any) -> Path:
        contract = tiny_contract(name=tasks, provenance=Provenance(protocol={"tasks": tasks}), **fields)
        return tiny_model(tmp_path / f"{tasks}.onnx", contract=contract)

    one = learned("joint", operating_points={"balanced": 0.9})
    other = learned("abnormality", operating_points={"balanced": 0.2, "sensitive": 0.1}, joint_confidence=1.0)
    both = Ensemble.load([one, other])
    assert both.operating_points == {"balanced": 0.2, "sensitive": 0.1}
    assert both.describe()["tasks"] == ["abnormality", "joint"]
    joints, abnormal = (list(Screener.load(model).predict(images)) for model in (one, other))
    for row, joint, call in zip(both.stream(images, at="sensitive"), joints, abnormal, strict=True):
        assert (row.error is None) == (joint.error is None)
        assert (row.joint, row.flags) == (joint.joint, joint.flags)
        if row.error is None:
            assert row.p_abnormal == pytest.approx(call.p_abnormal)
            assert row.p_joint == pytest.approx(joint.p_joint)
            assert row.abnormal == (row.p_abnormal >= 0.1)
    alone = Ensemble.load([one, learned("joint", joint_confidence=0.5)])
    assert {row.p_abnormal for row in alone.stream(images)} == {None}
