"""A run that is killed goes on and ends with the weights of one that never was."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent))

from small_mura import TINY, decode, small_mura

from mskscreen.errors import DataError, ProtocolError
from mskscreen.networks.checkpoint import load_checkpoint
from mskscreen.predictions import Predictions
from mskscreen.training import learner
from mskscreen.training.run import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def data(folder):
    (folder / "cache").mkdir()
    data = small_mura(folder / "data")
    decode(data, folder / "cache")
    return data


@pytest.fixture(scope="module")
def unbroken(folder, data):
    return train(data, TINY, folder / "unbroken", cache=folder / "cache")


@pytest.fixture(scope="module")
def broken(folder, data, unbroken):
    """Exit codes of three processes that were killed and of one that was told to stop."""
    command = [sys.executable, str(Path(__file__).parent / "small_mura.py"), str(data), str(folder)]
    done = subprocess.run([*command, str(folder / "cache")], check=True, capture_output=True, text=True)
    return [int(code) for code in done.stdout.split()], done.stderr


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(first[key].tobytes() == second[key].tobytes() for key in first)


@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_a_broken_run_ends_as_an_unbroken_one(folder, data, unbroken, broken, name):
    codes, _ = broken
    assert codes == [-9, -9, -9, 0]
    out = folder / name
    assert not (out / "done.json").exists()
    result = train(data, TINY, out, cache=folder / "cache")
    assert result.finished
    assert not result.already
    assert result.metrics == unbroken.metrics
    assert same_weights(out / "last.safetensors", unbroken.folder / "last.safetensors")
    assert same_weights(out / "best.safetensors", unbroken.folder / "best.safetensors")
    assert (out / "metrics.csv").read_text() == (unbroken.folder / "metrics.csv").read_text()
    tables = [Predictions.read(run / "development.parquet").images for run in (out, unbroken.folder)]
    assert tables[0] == tables[1]
    assert not list(out.glob(".*partial*"))


def test_sigterm_saves_and_says_how_to_go_on(folder, broken):
    assert "stopped and saved; the same command goes on" in broken[1]


def test_another_seed_ends_elsewhere(folder, data, unbroken):
    other = train(data, TINY.replace(seed=1), folder / "other", cache=folder / "cache")
    assert not same_weights(other.folder / "last.safetensors", unbroken.folder / "last.safetensors")


def test_a_finished_run_is_returned_as_it_is(folder, data, unbroken):
    before = (unbroken.folder / "best.safetensors").stat().st_mtime_ns
    again = train(data, TINY, unbroken.folder, cache=folder / "no cache is needed")
    assert again.already
    assert again.metrics == unbroken.metrics
    assert (unbroken.folder / "best.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ProtocolError, match="holds a run whose key epochs is '3', not '4'"):
        train(data, TINY.replace(epochs=4), unbroken.folder)


def test_a_run_is_not_continued_by_another_protocol(folder, data):
    out = folder / "claimed"
    steps = []
    begun = train(data, TINY, out, cache=folder / "cache", report=steps.append, stop=lambda: bool(steps))
    assert not begun.finished
    with pytest.raises(ProtocolError, match=re.escape("key rate is '0.003', not '0.001'")):
        train(data, TINY.replace(rate=1e-3), out, cache=folder / "cache")


def test_a_run_is_not_continued_in_another_precision(folder, data, monkeypatch):
    protocol, out, steps = TINY.replace(epochs=1, freeze="none", precision="auto"), folder / "precise", []
    monkeypatch.setattr(learner, "machine_kind", lambda: "avx2")
    train(data, protocol, out, cache=folder / "cache", report=steps.append, stop=lambda: bool(steps))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(learner, "machine_kind", lambda: "avx512+avx512_bf16")
        with pytest.raises(ProtocolError, match="was started in f32, but here it would go on in bf16"):
            train(data, protocol, out, cache=folder / "cache")
    assert train(data, protocol, out, cache=folder / "cache").cost["precision"] == "f32"


def test_a_run_that_saved_itself_goes_on_without_the_weights_it_began_with(folder, data, unbroken):
    weights = folder / "weights.safetensors"
    weights.write_bytes((unbroken.folder / "best.safetensors").read_bytes())
    protocol, steps = TINY.replace(init=str(weights), epochs=1), []
    whole = train(data, protocol, folder / "with weights", cache=folder / "cache")
    out = folder / "without weights"
    train(data, protocol, out, cache=folder / "cache", report=steps.append, stop=lambda: bool(steps))
    weights.unlink()
    result = train(data, protocol, out, cache=folder / "cache")
    assert result.finished
    assert same_weights(out / "last.safetensors", whole.folder / "last.safetensors")
    assert whole.notes == ()
    assert "may have seen images of the development fold" in result.notes[0]
    with pytest.raises(ProtocolError, match="is neither imagenet"):
        train(data, protocol, folder / "never begun", cache=folder / "cache")


def test_a_damaged_or_foreign_state_is_one_sentence(folder, data):
    out = folder / "damaged"
    steps = []
    train(data, TINY, out, cache=folder / "cache", report=steps.append, stop=lambda: bool(steps))
    state = out / "state.safetensors"
    whole = state.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x80\x04cposix\nsystem\n."):
        state.write_bytes(damaged)
        with pytest.raises(DataError, match="not a whole state"):
            train(data, TINY, out, cache=folder / "cache")


def test_what_a_killed_writer_left_goes_when_the_run_goes_on_or_has_ended(folder, data, unbroken):
    out, steps = folder / "left", []
    train(data, TINY, out, cache=folder / "cache", report=steps.append, stop=lambda: bool(steps))
    state = (out / "state.safetensors").read_bytes()
    (out / ".best.4711-0badcafe.partial.safetensors").write_bytes(b"half")
    train(data, TINY, out, cache=folder / "cache")
    (out / "state.safetensors").write_bytes(state)
    assert train(data, TINY, out, cache=folder / "cache").already
    assert {path.name for path in out.iterdir()} == {path.name for path in unbroken.folder.iterdir()}


@pytest.mark.parametrize("name", ["best.safetensors", "development.parquet"])
def test_a_run_whose_best_epoch_is_lost_does_not_end_without_it(folder, data, name):
    out, steps = folder / f"without {name}", []
    train(
        data, TINY, out, cache=folder / "cache", report=steps.append, stop=lambda: bool(steps) and steps[-1].epoch
    )
    (out / name).unlink()
    with pytest.raises(
        DataError, match=rf"{re.escape(name)}: is missing, .*delete state\.safetensors to begin anew"
    ):
        train(data, TINY, out, cache=folder / "cache")


def test_the_folder_of_a_run(folder, data, unbroken):
    names = {path.name for path in unbroken.folder.iterdir()}
    expected = {"protocol.toml", "best.safetensors", "last.safetensors", "metrics.csv", "development.parquet"}
    assert names == expected | {"curves.png", "done.json", "logs", "run.lock"}
    done = json.loads((unbroken.folder / "done.json").read_text())
    assert done["protocol"] == TINY.digest
    assert done["metrics"] == dict(unbroken.metrics)
    assert done["cost"]["images"] == TINY.epochs * (72 // 16) * 16
    _, contract = load_checkpoint(unbroken.folder / "best.safetensors")
    assert contract.provenance.figures["abnormality_auroc"] == unbroken.metrics["abnormality_auroc"]
    assert contract.provenance.protocol["seed"] == TINY.seed
