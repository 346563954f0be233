"""A protocol is its text: what is written is what is read, and what is wrong is named."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from mskscreen.errors import ProtocolError
from mskscreen.training.protocol import _ALIASES, SHIPPED, Protocol, described, differences

OTHER = {
    "architecture": "densenet121(pool=gem)",
    "init": "weights of Zoë.safetensors",
    "resize": "letterbox",
    "augmentation": "flip(0.5)",
    "labels": "label_second",
    "sampling": "joint",
    "tasks": "joint",
    "loss": "focal",
    "optimiser": "sgd",
    "schedule": "cosine",
    "precision": "bf16",
    "freeze": "backbone(2)|backbone.conv1",
}


@pytest.mark.parametrize("key", dataclasses.fields(Protocol), ids=lambda key: key.name)
def test_every_key_survives_its_text_and_changes_the_digest(tmp_path, key):
    plain = Protocol()
    value = OTHER.get(key.name, "uncertainty" if key.name == "task_weights" else None)
    if value is None:
        value = key.default + 1 if isinstance(key.default, int) else key.default / 2 + 0.25
    changed = plain.replace(**{key.name: value})
    assert changed.digest != plain.digest
    (tmp_path / "protocol.toml").write_text(changed.to_toml(), encoding="utf-8")
    assert Protocol.from_toml(tmp_path / "protocol.toml") == changed
    (as_text,) = differences([f"--{key.name.replace('_', '-')}", str(value)]).items()
    assert plain.replace(**dict([as_text])) == changed
    assert plain.replace(**differences([f"--{key.name}={value}"])) == changed


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("learning_rate = 1e-3", "key 'learning_rate' is unknown; the nearest known one is"),
        ("bach = 3", "the nearest known one is 'batch'"),
        ("epochs = 0", "key epochs: 0 lies outside 1 to 100000"),
        ("epochs = 2.5", "key epochs: 2.5 is not a whole number"),
        ("epochs = true", "key epochs: True is not a whole number"),
        ("rate = nan", "key rate: nan lies outside"),
        ("rate = 'fast'", "key rate: 'fast' is not a number"),
        ("rate = {a = 1}", "key rate: {'a': 1} is not a number"),
        ("loss = 'hinge'", "key loss: 'hinge' is not one of cross-entropy, weighted, focal"),
        ("init = ''", "key init: the text is empty"),
        ("architecture = 'resnet19'", "key architecture: architecture 'resnet19' is unknown"),
        ("augmentation = 'flop(0.5)'", "the nearest known one is 'flip'"),
        ("freeze = 'backbone(two)'", "key freeze: 'backbone(two)' is not understood"),
        ("tasks = 'joint'\ntask_weights = 'uncertainty'", "needs two tasks"),
        ("joint_weight = 0", "key joint_weight: 0 teaches nothing of joint"),
        ("tasks = 'abnormality'\nabnormality_weight = 0", "key abnormality_weight: 0 teaches nothing"),
        ("epochs = ", "cannot be read as TOML"),
        (f"epochs = {'9' * 5000}", "cannot be read as TOML"),
        (f"epochs = 0x{'f' * 5000}", "cannot be read as TOML"),
        (f"epochs = {'[' * 5000}", "cannot be read as TOML"),
        (f"patience = {'9' * 400}.0", "key patience: inf is not a whole number"),
        (f"rate = {'9' * 400}", "key rate: 999"),
        (f"{'x' * 9000} = 1", "key 'xxx"),
        (f"{'x' * 9000}.a = 1\n{'x' * 9000}.a.b = 1", "cannot be read as TOML"),
        (f"loss = '{'x' * 9000}'", "key loss: 'xxx"),
        (f"architecture = '{'x' * 9000}'", "key architecture: architecture 'xxx"),
        (f"augmentation = '{'x' * 9000}'", "key augmentation: augmentation 'xxx"),
        (f"freeze = '{'(' * 9000}'", "key freeze: '((("),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_file_and_key(tmp_path, text, named):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ProtocolError, match=r"mine\.toml") as error:
        Protocol.from_toml(tmp_path / "mine.toml")
    assert named in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ema", "averaging"),
        ("arch", "architecture"),
        ("image_size", "input_size"),
        ("early_stopping", "patience"),
        ("pretrained", "init"),
        ("learning_rate", "rate"),
        ("weight_decay", "decay"),
        ("batch_size", "batch"),
        ("optimizer", "optimiser"),
    ],
)
def test_what_others_call_a_key_leads_to_it(name, key):
    with pytest.raises(ProtocolError, match=f"key '{name}' is unknown; the nearest known one is '{key}'"):
        Protocol().replace(**{name: "1"})


def test_no_alias_hides_a_key_or_leads_to_none():
    keys = {name for name, _, _ in described()}
    assert set(_ALIASES.values()) <= keys
    assert keys.isdisjoint(_ALIASES)


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--dry-run", "--epochs", "3"], ["--dry-run=1"]])
def test_a_key_that_is_like_no_other_is_unknown_wherever_it_stands(arguments):
    with pytest.raises(ProtocolError, match="key 'dry_run' is unknown; mskscreen train --help lists them all"):
        differences(arguments)


def test_arguments_that_are_no_keys_are_named():
    with pytest.raises(ProtocolError, match="argument 'epochs' is not understood"):
        differences(["epochs", "3"])
    with pytest.raises(ProtocolError, match="key 'epochs' lacks its value"):
        differences(["--epochs"])
    with pytest.raises(ProtocolError, match=re.escape("shipped are demo.toml, mura.toml, paper.toml")):
        Protocol.from_toml("papper.toml")
    with pytest.raises(ProtocolError, match=re.escape("'paper.tml': no such file")):
        Protocol.from_toml("paper.tml")


def test_shipped_protocols_say_what_was_published():
    paper, mura = Protocol.from_toml("paper.toml"), Protocol.from_toml("mura")
    assert (paper.init, paper.loss, paper.tasks, paper.task_weights) == (
        "imagenet", "cross-entropy", "both", "fixed",
    )  # fmt: skip
    assert (mura.architecture, mura.input_size, mura.loss, mura.batch) == ("timm:densenet169", 320, "weighted", 8)
    assert (mura.optimiser, mura.rate, mura.schedule, mura.plateau_factor) == ("adam", 1e-4, "plateau", 0.1)
    assert Protocol.from_toml("demo").init == "package"


def test_shipped_files_hold_only_keys(tmp_path):
    assert len(list(SHIPPED.glob("*.toml"))) == 3
    for path in SHIPPED.glob("*.toml"):
        assert set(tomllib.loads(path.read_text())) <= {name for name, _, _ in described()}


def test_every_key_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text().replace(r"\|", "|")
    for name, default, says in described():
        assert f"| `{name}` | `{default}` | {says} |" in page, name
