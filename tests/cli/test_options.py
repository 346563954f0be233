"""An option that would do nothing, and a key that no protocol can have, are wrong calls before any work."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mskscreen.cli.main import app


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """What a wrong call says, in a folder that holds the file `a`."""
    monkeypatch.chdir(tmp_path)
    Path("a").touch()

    def call(command: str) -> str:
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 2
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.stderr).split())

    return call


@pytest.mark.parametrize(
    ("command", "idle"),
    [
        ("evaluate a --reference r1", "--reference: of no use without --readers"),
        ("evaluate a --dev-labels a", "--dev-labels: of no use without --dev"),
        ("evaluate a --dev-other-set", "--dev-other-set: of no use without --dev"),
        ("evaluate a --miss-cost 2", "--miss-cost: of no use without --dev"),
        (
            "evaluate a --sensitivity 0.95 --specificity 0.9",
            "--sensitivity and --specificity: of no use without --dev",
        ),
        ("evaluate a --images .", "--images: of no use without --report"),
        ("evaluate a --maps .", "--maps: of no use without --report"),
        ("search a --ray auto --jobs 1", "--jobs: of no use with --ray"),
        ("search a --cpus 2 --gpus 1", "--cpus and --gpus: of no use without --ray"),
        ("predict a --ray --workers 1", "without --maps, --contract and --workers"),
        ("explain score a . --truth a --root .", "--root: of no use without --model"),
        ("explain score a . --truth a --images 32", "--images: of no use without --model"),
        ("explain score a . --truth a --max-pixels 9", "--max-pixels: of no use without --model"),
        ("explain score a . --truth a --dev-truth a", "--dev-truth: of no use without --dev-maps"),
        ("explain score a . --model a --level 0.5", "--level: of no use without --truth"),
        ("explain a --out b --seed 1", "--seed: of no use without --method rise"),
        ("explain a --out b --method rise --patches 4", "--patches: of no use without --method occlusion"),
        ("explain a --out b --checkpoint a", "--checkpoint: of no use without --method integrated-gradients"),
    ],
)
def test_an_option_without_effect_is_refused(refused: Callable, command: str, idle: str) -> None:
    assert idle in refused(command)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("--epoch 3", "key 'epoch' is unknown; the nearest known one is 'epochs'"),
        ("--batch 3.5", "key batch: '3.5' is not a whole number"),
        ("--tasks joint --task-weights uncertainty", "'uncertainty' needs two tasks"),
        ("epochs=3", "write --key value"),
    ],
)
def test_a_key_that_no_protocol_can_have_is_a_wrong_call(refused: Callable, keys: str, said: str) -> None:
    assert said in refused(f"train a --out b {keys}")
    assert not Path("b").exists()
