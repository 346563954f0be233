"""What a run makes of good data, of bad data and of a full disk."""

import csv
import dataclasses
import itertools
import json
import logging
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from small_mura import TINY, decode, small_mura

from mskscreen.data.folds import split
from mskscreen.errors import DataError, ModelError, ProtocolError
from mskscreen.evaluation.metrics import abnormality_statistic, joint_statistic
from mskscreen.export import export_onnx
from mskscreen.inference import Screener
from mskscreen.networks import build_network
from mskscreen.networks.checkpoint import load_checkpoint
from mskscreen.predictions import Predictions
from mskscreen.training import logs
from mskscreen.training.course import Run
from mskscreen.training.learner import start_network
from mskscreen.training.loader import joint_numbers
from mskscreen.training.material import read_data
from mskscreen.training.run import _fabric, train

SHORT = TINY.replace(epochs=1, freeze="none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def data(folder):
    (folder / "cache").mkdir()
    root = small_mura(folder / "data")
    manifest = split(read_data(root, TINY), development=0.2)
    manifest.write(folder / "folds.parquet")
    decode(folder / "folds.parquet", folder / "cache")
    return folder / "folds.parquet"


@pytest.fixture(scope="module")
def result(folder, data):
    told = []
    # Long enough to learn a square and a stripe.
    protocol = TINY.replace(epochs=6, rate=1e-2, averaging=0, patience=5)
    return train(data, protocol, folder / "run", cache=folder / "cache", report=told.append), told


def edited(data, out, **columns):
    """A manifest like that of `data`, with columns made from their old values."""
    manifest = read_data(data, TINY)
    made = {name: [change(value) for value in manifest[name]] for name, change in columns.items()}
    manifest.replace({**manifest.columns, **made}).write(out)
    return out


def test_a_run_learns_what_is_there_to_be_learned(result):
    assert result[0].metrics["abnormality_auroc"] > 0.8
    assert result[0].metrics["joint_accuracy"] > 0.8
    assert result[0].notes == ()


def test_every_step_and_epoch_is_reported(result):
    _, told = result
    epochs = [at for at in told if at.metrics is not None]
    steps = [(at.epoch, at.step) for at in told if at.metrics is None]
    assert steps == [(epoch, step) for epoch in range(len(epochs)) for step in range(1, told[0].steps + 1)]
    assert all(at.images_per_second > 0 for at in told)


def test_figures_are_those_of_the_evaluation_room(data, result):
    manifest = read_data(data, TINY)
    table = Predictions.read(result[0].folder / "development.parquet")
    assert [row.file for row in table] == [
        image for image, fold in zip(manifest["image"], manifest["fold"], strict=True) if fold == 0
    ]
    truth = dict(zip(manifest["study"], manifest["label"], strict=True))
    labels = np.array([truth[row.study] for row in table.studies])
    p = np.array([row.p_abnormal for row in table.studies])
    found = abnormality_statistic(labels, p, 0.5)(np.ones((1, len(p))))
    assert found["auroc"][0] == pytest.approx(result[0].metrics["abnormality_auroc"])
    assert found["accuracy"][0] == pytest.approx(result[0].metrics["abnormality_accuracy"])
    joints = joint_numbers(manifest)[np.array(manifest["fold"]) == 0]
    found = joint_statistic(joints, np.array([row.p_joint for row in table]))(np.ones((1, len(joints))))
    assert found["accuracy"][0] == pytest.approx(result[0].metrics["joint_accuracy"])


def test_an_exported_run_predicts_what_its_table_says(data, result, tmp_path):
    export_onnx(*load_checkpoint(result[0].folder / "best.safetensors"), tmp_path / "best.onnx")
    manifest, table = read_data(data, TINY), Predictions.read(result[0].folder / "development.parquet")
    found = Screener.load(tmp_path / "best.onnx", precision="f32").predict(
        [manifest.root / row.file for row in table]
    )
    # The cache rounds pixels to 8 bits.
    for mine, theirs in zip(table, found, strict=True):
        assert mine.p_abnormal == pytest.approx(theirs.p_abnormal, abs=0.02)
        assert mine.p_joint == pytest.approx(theirs.p_joint, abs=0.02)


def test_the_curves_are_a_picture_and_the_best_epoch_is_the_best(result):
    with Image.open(result[0].folder / "curves.png") as picture:
        assert len(picture.convert("L").getcolors(256)) > 10
    rows = (result[0].folder / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("abnormality_auroc")
    assert result[0].metrics["abnormality_auroc"] == max(float(row.split(",")[column]) for row in rows[1:])


def test_a_run_that_gets_no_better_stops_early(folder, data):
    protocol = TINY.replace(epochs=50, rate=1e-12, decay=0, patience=2, freeze="backbone", averaging=0)
    protocol = protocol.replace(task_weights="fixed", schedule="constant", heads=10)
    found = train(data, protocol, folder / "early", cache=folder / "cache")
    assert found.cost["epochs"] == 3
    assert found.metrics["epoch"] == 1
    rows = csv.DictReader((folder / "early" / "metrics.csv").open())
    assert [float(row["rate"]) for row in rows] == [protocol.rate] * 3, "that of the protocol, not of the heads"


def test_images_of_a_step_weigh_the_same_in_whichever_pass_they_are(folder, data, tmp_path):
    numbers = itertools.count()
    some = edited(data, tmp_path / "some.parquet", label=lambda label: label if next(numbers) % 3 else None)
    # No norm learns, for it looks at one pass alone.
    protocol = SHORT.replace(sampling="natural", freeze="backbone", dropout=0, averaging=0, optimiser="sgd")
    weights = []
    for batch, accumulate in ((16, 1), (4, 4)):
        out = tmp_path / str(batch)
        train(some, protocol.replace(batch=batch, accumulate=accumulate), out, cache=folder / "cache")
        weights.append(load_checkpoint(out / "last.safetensors")[0].state_dict())
    begun = start_network(protocol).state_dict()
    for name, whole in weights[0].items():
        moved = (whole.float() - begun[name].float()).abs().max()
        assert (whole.float() - weights[1][name].float()).abs().max() <= 1e-3 * moved, name


@pytest.mark.parametrize(("tasks", "silent"), [("abnormality", "p_joint"), ("joint", "p_abnormal")])
def test_a_task_that_is_not_learned_says_nothing(folder, data, tasks, silent):
    protocol = SHORT.replace(tasks=tasks, task_weights="fixed")
    found = train(data, protocol, folder / tasks, cache=folder / "cache")
    assert {name.partition("_")[0] for name in found.metrics} - {"epoch", "loss", "dev"} == {tasks}
    rows = Predictions.read(found.folder / "development.parquet").images
    assert {getattr(row, silent) for row in rows} == {None}
    assert all(row.scored for row in rows)
    _, contract = load_checkpoint(found.folder / "last.safetensors")
    assert "was not trained" in contract.provenance.notes


def test_an_earlier_run_or_a_file_of_weights_begins_a_run(folder, data, result, tmp_path):
    earlier, _ = load_checkpoint(result[0].folder / "best.safetensors")
    for init in (result[0].folder, result[0].folder / "best.safetensors"):
        begun = start_network(SHORT.replace(init=str(init), seed=9))
        assert all(torch.equal(a, b) for a, b in zip(begun.parameters(), earlier.parameters(), strict=True))
    torch.save(earlier.backbone.state_dict(), tmp_path / "backbone.pth")
    begun = start_network(SHORT.replace(init=str(tmp_path / "backbone.pth")))
    assert torch.equal(next(begun.backbone.parameters()), next(earlier.backbone.parameters()))
    assert not torch.equal(begun.shared.weight, earlier.shared.weight)
    with pytest.raises(ProtocolError, match="holds the architecture timm:test_resnet, not timm:test_efficientnet"):
        start_network(SHORT.replace(init=str(result[0].folder), architecture="timm:test_efficientnet"))
    with pytest.raises(ProtocolError, match="neither imagenet, random, package nor a file"):
        start_network(SHORT.replace(init=str(tmp_path / "none")))
    (tmp_path / "bad.pth").write_bytes(b"\x80\x04cposix\nsystem\n.")
    with pytest.raises(ModelError, match="cannot be read"):
        start_network(SHORT.replace(init=str(tmp_path / "bad.pth")))


def test_weights_that_may_have_seen_the_development_fold_are_refused_or_noted(folder, data, result, tmp_path):
    small = SHORT.replace(batch=4)
    protocol = small.replace(init=str(result[0].folder))
    with pytest.raises(ProtocolError, match="has learned from fold 1, for it held out fold 0 of the same data"):
        train(data, protocol.replace(fold=1), tmp_path / "leak", cache=folder / "cache")
    assert train(data, protocol, tmp_path / "same", cache=folder / "cache").notes == ()
    other = edited(data, tmp_path / "other.parquet", fold=lambda fold: 1 - fold)
    untold = train(other, protocol, tmp_path / "untold", cache=folder / "cache")
    heir = train(other, small.replace(init=str(untold.folder)), tmp_path / "heir", cache=folder / "cache")
    for found in (untold, heir):
        assert "may have seen images of the development fold" in found.notes[0]
        assert json.loads((found.folder / "done.json").read_text())["notes"] == list(found.notes)
        assert load_checkpoint(found.folder / "best.safetensors")[1].provenance.notes == found.notes[0]


def test_images_that_cannot_be_decoded_are_said_and_left_out(folder, tmp_path):
    root = small_mura(tmp_path / "data")
    manifest = read_data(root, SHORT)
    chosen = [next(i for i, fold in enumerate(manifest["fold"]) if fold == part) for part in (0, 1)]
    for row in chosen:
        (root / manifest["image"][row]).write_bytes(b"no image")
    (tmp_path / "cache").mkdir()
    decode(root, tmp_path / "cache")
    found = train(root, SHORT, tmp_path / "run", cache=tmp_path / "cache")
    assert found.finished
    assert found.notes[0].startswith("2 images cannot be decoded and are left out")
    rows = [row for row in Predictions.read(tmp_path / "run" / "development.parquet") if row.error]
    assert [row.file for row in rows] == [manifest["image"][chosen[0]]]
    assert json.loads((tmp_path / "run" / "done.json").read_text())["notes"] == list(found.notes)


@pytest.mark.parametrize(
    ("columns", "differences", "named"),
    [
        ({"label": lambda _: 1}, {}, "the training folds: only images of class 'abnormal' in column 'label'"),
        ({"label": lambda _: None}, {}, "no image of known class in column 'label'"),
        ({"joint": lambda _: "hand"}, {}, "only images of class 'hand' in column 'joint'"),
        ({"study": lambda _: "one"}, {}, "development fold 0: only studies of class 'abnormal' in column 'label'"),
        ({}, {"labels": "joint"}, "column 'joint': row 0 holds 'wrist', which is no label"),
        ({}, {"batch": 1, "accumulate": 1}, "take a batch of 2 or more"),
        ({"fold": lambda _: 0}, {}, "fold 0 is the only one"),
        ({}, {"fold": 7}, "no fold 7"),
        ({}, {"labels": "label_second"}, "no label column 'label_second'; it has label"),
        ({}, {"batch": 4096}, "do not fill one step of 8192"),
        ({}, {"freeze": "backbone.nothing"}, "has no module 'backbone.nothing'"),
    ],
)
def test_data_that_cannot_teach_is_one_sentence(folder, data, tmp_path, columns, differences, named):
    poor = edited(data, tmp_path / "poor.parquet", **columns)
    with pytest.raises((DataError, ProtocolError)) as error:
        train(poor, SHORT.replace(**differences), tmp_path / "run", cache=folder / "cache")
    assert named in str(error.value)
    assert not (tmp_path / "run" / "done.json").exists()


def test_a_class_that_one_part_lacks_is_said(folder, data, tmp_path):
    manifest = read_data(data, TINY)
    moved = [
        1 if joint == "elbow" else fold for joint, fold in zip(manifest["joint"], manifest["fold"], strict=True)
    ]
    manifest.replace({**manifest.columns, "fold": moved}).write(tmp_path / "folds.parquet")
    found = train(tmp_path / "folds.parquet", SHORT, tmp_path / "run", cache=folder / "cache")
    assert found.notes == ("development fold 0: no image of class 'elbow', which is therefore not measured",)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_what_was_saved(folder, data):
    protocol = SHORT.replace(optimiser="sgd", rate=100, heads=1e6, schedule="constant", epochs=4)
    with pytest.raises(ProtocolError, match=r"the loss is (nan|inf) at epoch 1, step \d; what was saved before"):
        train(data, protocol, folder / "infinite", cache=folder / "cache")
    assert not list((folder / "infinite").glob(".*"))


@pytest.mark.parametrize(
    "wrong", [{"batch": 4096}, {"freeze": "backbone.nothing"}, {"init": "nowhere"}, {"rate": 100.0, "heads": 1e6}]
)
def test_the_remedy_of_a_start_that_failed_is_taken_in_the_same_folder(folder, data, tmp_path, wrong):
    protocol = SHORT.replace(optimiser="sgd", schedule="constant")
    with pytest.raises((DataError, ProtocolError)):
        train(data, protocol.replace(**wrong), tmp_path, cache=folder / "cache")
    assert train(data, protocol, tmp_path, cache=folder / "cache").finished
    with pytest.raises(ProtocolError, match=f"holds a run whose key {next(iter(wrong))} is"):
        train(data, protocol.replace(**wrong), tmp_path, cache=folder / "cache")


def test_weights_that_are_not_finite_are_never_saved(folder, data, tmp_path, monkeypatch):
    step, told = Run._step, []

    def poisoned(run, batches):
        found = step(run, batches)
        run.network.shared.bias.data[0] = torch.nan
        return found

    monkeypatch.setattr(Run, "_step", poisoned)
    with pytest.raises(ProtocolError, match=r"the tensor shared\.bias is not finite at epoch 1, step 2"):
        train(data, SHORT, tmp_path, cache=folder / "cache", report=told.append, stop=lambda: bool(told))
    assert not list(tmp_path.glob("*.safetensors"))


def test_weights_that_are_not_finite_at_the_end_of_an_epoch_are_never_written(folder, data, tmp_path, monkeypatch):
    score = Run._score

    def poisoned(run):
        # The average of the weights, which is measured, does not have it yet.
        run.network.shared.bias.data[0] = torch.nan
        score(run)

    monkeypatch.setattr(Run, "_score", poisoned)
    with pytest.raises(ProtocolError, match=r"the tensor shared\.bias is not finite at epoch 1"):
        train(data, SHORT, tmp_path, cache=folder / "cache")
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(folder, data):
    protocol = TINY.replace(epochs=2)
    out = folder / "full"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(at):
        if at.metrics is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))

    try:
        with pytest.raises(DataError, match="what was saved before is whole: make room"):
            train(data, protocol, out, cache=folder / "cache", report=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(out / "best.safetensors")[1].provenance.figures
    assert not list(out.glob(".*partial*"))
    found = train(data, protocol, out, cache=folder / "cache")
    whole = train(data, protocol, folder / "never full", cache=folder / "cache")
    assert found.metrics == whole.metrics


def test_a_folder_that_is_none_is_not_taken_for_a_full_disk(folder, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: cannot be written \(.*; choose another folder with --out"):
        train(data, SHORT, tmp_path / "file", cache=folder / "cache")
    with pytest.raises(DataError, match=r"file/c: cannot be made \(.*; choose another folder with --cache"):
        train(data, SHORT, tmp_path / "run", cache=tmp_path / "file" / "c")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"accelerator": "abacus"}, "--accelerator abacus"),
        ({"strategy": "hope"}, "--strategy hope"),
        ({"strategy": "ddp_spawn"}, "--strategy ddp_spawn"),
        ({"strategy": "fsdp", "devices": 2}, "--strategy fsdp"),
        ({"devices": 0}, "--devices 0"),
        ({"devices": "many"}, "--devices many"),
        ({"accelerator": "tpu"}, "--accelerator tpu"),
        ({"accelerator": "cpu", "devices": 9999}, "--devices: 9999 processes"),
    ],
)
def test_devices_that_are_not_there_are_refused_before_a_process_is_started(
    data, tmp_path, monkeypatch, options, named
):
    monkeypatch.setattr(Fabric, "launch", lambda _: pytest.fail("processes were started"))
    with pytest.raises(ProtocolError, match=re.escape(named)):
        train(data, SHORT, tmp_path / "run", lightning=options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"strategy": "ddp"}, {"devices": 2}, {"num_nodes": 2}])
def test_a_distributed_run_waits_for_no_gradient_of_a_task_that_is_not_learned(options):
    strategy = _fabric(SHORT, {"accelerator": "cpu", **options}).strategy
    assert strategy._ddp_kwargs["find_unused_parameters"]


@pytest.mark.parametrize("moment", ["import", "log_metrics", "finalize"])
def test_an_mlflow_that_fails_is_named_once_and_the_run_goes_on(folder, data, tmp_path, monkeypatch, moment):
    said = []
    kept = logging.Handler()
    kept.emit = said.append
    monkeypatch.setattr(logs.log, "handlers", [kept])
    (tmp_path / "mlflow.py").write_text("raise RuntimeError('no server')")
    monkeypatch.syspath_prepend(tmp_path)

    class Failing:
        def log_metrics(self, *_):
            self.fail("log_metrics")

        def save(self):
            pass

        def finalize(self, _):
            self.fail("finalize")

        def fail(self, now):
            if now == moment:
                raise ConnectionError("no server")

    if moment != "import":
        monkeypatch.setattr(logs, "_mlflow", lambda *_: Failing())
    found = train(data, SHORT.replace(epochs=2), tmp_path / "run", cache=folder / "cache")
    assert found.finished
    assert len(said) == 1
    assert "training goes on without it" in said[0].getMessage()
    assert list((tmp_path / "run" / "logs").rglob("events.out.tfevents*"))


def test_the_weights_of_the_hub_are_asked_for_by_name(folder, data):
    with pytest.raises(ModelError, match=re.escape("ImageNet weights of 'resnet18'")):
        start_network(dataclasses.replace(SHORT, architecture="resnet18", init="imagenet"))


def test_random_weights_follow_the_seed():
    one, same, other = (start_network(SHORT.replace(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(one.shared.weight, same.shared.weight)
    assert not torch.equal(one.shared.weight, other.shared.weight)
    assert isinstance(one, type(build_network(SHORT.architecture)))


@pytest.mark.parametrize(
    ("differences", "named"),
    [
        ({"architecture": "inception_v3"}, "inception_v3 cannot take an input of 32 pixels; it was made for 299"),
        ({"architecture": "resnet18", "init": "imagenet"}, "ImageNet weights of 'resnet18' are neither"),
        ({"init": "package"}, "not of 'test_resnet'"),
        ({"init": "gone.safetensors"}, "neither imagenet, random, package nor a file"),
        ({"init": "misfit.pth"}, "it is of another architecture"),
        ({"freeze": "backbone.nothing"}, "has no module 'backbone.nothing'"),
        ({"batch": 4096}, "do not fill one step of 8192"),
        ({"fold": 7}, "no fold 7"),
    ],
)
def test_what_needs_no_image_is_told_before_one_is_decoded(data, tmp_path, monkeypatch, differences, named):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "misfit.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, ModelError, ProtocolError), match=named):
        train(data, SHORT.replace(**differences), tmp_path / "run", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_class_that_only_broken_images_have_is_missed(folder, tmp_path):
    root = small_mura(tmp_path / "data")
    for image in root.glob("*/*/*/*positive/*"):
        image.write_bytes(b"no image")
    (tmp_path / "cache").mkdir()
    decode(root, tmp_path / "cache")
    with pytest.raises(DataError, match="the training folds: only images of class 'normal'"):
        train(root, SHORT, tmp_path / "run", cache=tmp_path / "cache")
