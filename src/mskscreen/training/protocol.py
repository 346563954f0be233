"""A protocol: the frozen description of one training run, written as TOML or as `--key value`.

    mskscreen train folds.parquet --protocol paper.toml --architecture resnet18 --seed 3 --out runs/resnet18-3

A TOML file holds only what differs from the defaults below. `paper.toml`, `mura.toml` and `demo.toml` are shipped.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from mskscreen.errors import MskscreenError, ProtocolError, short

SHIPPED = Path(__file__).parent / "protocols"
INITS = ("imagenet", "random", "package")
BEST = "best.safetensors"  # the checkpoint that the folder of a run is known by
# What others call a key, where the spelling is no help.
_ALIASES = {
    "arch": "architecture",
    "backbone": "architecture",
    "model": "architecture",
    "network": "architecture",
    "pretrained": "init",
    "weights": "init",
    "image_size": "input_size",
    "img_size": "input_size",
    "resolution": "input_size",
    "learning_rate": "rate",
    "lr": "rate",
    "wd": "decay",
    "weight_decay": "decay",
    "gradient_clip": "clip",
    "early_stopping": "patience",
    "ema": "averaging",
    "amp": "precision",
}
_FREEZE = re.compile(r"([A-Za-z0-9_.]+?)(?:\((\d{1,4})\))?")


def _key(default: Any, says: str, *, among: tuple[str, ...] = (), low: float = 0, high: float = math.inf) -> Any:
    return field(default=default, metadata={"says": says, "among": among, "low": low, "high": high})


def read_toml(kind: str, path: Path | str, shipped: Path) -> tuple[Path, dict[str, Any]]:
    """Read a TOML file, or the one of this name in the folder `shipped`; returns also where it lies.

    Raises ProtocolError that names the file as `kind` where there is none or it is no TOML.
    """
    file = Path(path)
    if not file.is_file() and file.parent == Path() and file.suffix in ("", ".toml"):
        file = shipped / f"{file.stem}.toml"
    try:
        with file.open("rb") as stream:
            value = tomllib.load(stream)
        json.dumps(value, default=str)  # a number of thousands of digits cannot be told either
        return file, value
    except FileNotFoundError:
        known = ", ".join(sorted(each.name for each in shipped.glob("*.toml")))
        raise ProtocolError(f"{kind} '{path}': no such file; shipped are {known}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ProtocolError(f"{kind} '{path}': cannot be read as TOML ({short(error, 200)})") from error


@dataclass(frozen=True)
class Protocol:
    """One training run, but for its data: architecture x initialisation x loss x tasks x schedule x seed.

    Raises ProtocolError that names the key at fault, what it may hold and, where it is unknown, the nearest one.
    """

    architecture: str = _key("resnet18", "one of the six or timm:MODEL, with options as in resnet18(pool=gem)")
    init: str = _key("imagenet", "imagenet, random, package, a file of weights, or the folder of an earlier run")
    input_size: int = _key(
        0, "height and width in pixels; 0 for what the release has, of other networks 224", high=4096
    )
    resize: str = _key("resize", "squash the image or keep its aspect ratio", among=("resize", "letterbox"))
    augmentation: str = _key(
        "rotation(15)|scale(0.9,1.1)|translation(0.05)|flip(0.5)|contrast(0.2)", "what is done to training images"
    )
    labels: str = _key("label", "column of the manifest that says what is abnormal")
    fold: int = _key(0, "the development fold; the other folds train")
    sampling: str = _key("natural", "how often an image is drawn", among=("natural", "class", "joint"))
    tasks: str = _key("both", "what is learned", among=("both", "abnormality", "joint"))
    task_weights: str = _key("fixed", "how two losses become one", among=("fixed", "uncertainty"))
    abnormality_weight: float = _key(1.0, "factor of the abnormality loss")
    joint_weight: float = _key(1.0, "factor of the joint loss")
    loss: str = _key("cross-entropy", "loss of each task", among=("cross-entropy", "weighted", "focal"))
    focal_gamma: float = _key(2.0, "exponent of the focal loss", high=10)
    label_smoothing: float = _key(0.0, "share of the truth spread over all classes", high=0.99)
    optimiser: str = _key("adamw", "the optimiser", among=("adamw", "adam", "sgd"))
    rate: float = _key(3e-4, "highest learning rate", low=1e-12, high=100)
    heads: float = _key(1.0, "factor of the rate of all layers but the backbone", low=1e-6, high=1e6)
    decay: float = _key(0.01, "weight decay", high=10)
    momentum: float = _key(0.9, "momentum of sgd", high=0.9999)
    clip: float = _key(0.0, "largest norm of the gradient; 0 for any")
    schedule: str = _key("one-cycle", "how the rate goes", among=("one-cycle", "cosine", "plateau", "constant"))
    warmup: float = _key(0.1, "share of the run in which the rate rises (one-cycle, cosine)", high=0.9)
    plateau_patience: int = _key(1, "epochs without a lower development loss before the rate falls", low=1)
    plateau_factor: float = _key(0.1, "factor by which it falls then", low=1e-6, high=0.999)
    epochs: int = _key(10, "passes over the training images", low=1, high=100_000)
    patience: int = _key(0, "epochs without a better development score before the run stops; 0 for never")
    averaging: float = _key(
        0.0, "decay per step of the average of the weights that is kept; 0 for none", high=0.99999
    )
    batch: int = _key(32, "images of one pass, in each process", low=1, high=65536)
    accumulate: int = _key(1, "passes of one step", low=1, high=65536)
    precision: str = _key("auto", "bf16 where the processor has it, or one of both", among=("auto", "bf16", "f32"))
    freeze: str = _key("none", "modules that do not learn for so many epochs, or ever: backbone(2)|backbone.conv1")
    dropout: float = _key(0.2, "share of units left out before the outputs", high=0.95)
    seed: int = _key(0, "seed of weights, draws and dropout", high=2**31)

    def __post_init__(self) -> None:
        for key in fields(self):
            _check(key.name, getattr(self, key.name), key.metadata)
        if self.tasks != "both" and self.task_weights == "uncertainty":
            raise ProtocolError(f"key task_weights: 'uncertainty' needs two tasks, but tasks is '{self.tasks}'")
        for task in ("abnormality", "joint"):
            if self.tasks in ("both", task) and not getattr(self, f"{task}_weight"):
                raise ProtocolError(
                    f"key {task}_weight: 0 teaches nothing of {task}; raise it, or name the other task in tasks"
                )
        _ = self.frozen
        # Both import torch, which whoever only lists the keys does not wait for.
        from mskscreen.networks import Architecture
        from mskscreen.training.augment import Augmentation

        for name, parse in (("architecture", Architecture.parse), ("augmentation", Augmentation.parse)):
            try:
                parse(getattr(self, name))
            except MskscreenError as error:
                raise ProtocolError(f"key {name}: {error}") from error

    @classmethod
    def from_toml(cls, path: Path | str) -> Protocol:
        """Read a file of differences, or a shipped protocol by its name (`paper` or `paper.toml`)."""
        _, differences = read_toml("protocol", path, SHIPPED)
        try:
            return cls().replace(**differences)
        except ProtocolError as error:
            raise ProtocolError(f"protocol '{path}': {error}") from error

    def replace(self, **differences: Any) -> Protocol:
        """The protocol with other values; each may be given as text, as on a command line."""
        keys = {key.name: key for key in fields(self)}
        values = {}
        for name, value in differences.items():
            _require_key(name)
            values[name] = _typed(name, type(keys[name].default), value)
        return dataclasses.replace(self, **values)

    def to_toml(self) -> str:
        """All keys as TOML, defaults too, so that the text means the same in a later version."""
        values = dataclasses.asdict(self).items()
        return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values)

    @property
    def digest(self) -> str:
        """SHA-256 of all keys and values, in hexadecimal."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def frozen(self) -> dict[str, float]:
        """Names of modules that do not learn, and for how many epochs (infinity for ever)."""
        if self.freeze == "none":
            return {}
        found: dict[str, float] = {}
        for part in self.freeze.replace(" ", "").split("|"):
            match = _FREEZE.fullmatch(part)
            if match is None:
                raise ProtocolError(
                    f"key freeze: '{short(part)}' is not understood; write none or backbone(2)|backbone.conv1"
                )
            found[match[1]] = float(match[2] or math.inf)
        return found


def described() -> Iterator[tuple[str, str, str]]:
    """Name, default as TOML and meaning of every key."""
    for key in fields(Protocol):
        among = key.metadata["among"]
        yield key.name, json.dumps(key.default), key.metadata["says"] + (f": {', '.join(among)}" if among else "")


def differences(arguments: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value` as a dictionary; hyphens may stand for underscores.

    Raises ProtocolError for anything else, and for an unknown key.
    """
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ProtocolError(f"argument '{name}' is not understood; write --key value")
        key = name[2:].replace("-", "_")
        _require_key(key)
        if not equals:
            if not rest:
                raise ProtocolError(f"key '{key}' lacks its value; write {name} VALUE")
            value = rest.pop(0)
        found[key] = value
    return found


def _require_key(name: str) -> None:
    """Raise ProtocolError that names the nearest key, where one is near, if there is none of this name."""
    keys = [key.name for key in fields(Protocol)]
    if name not in keys:
        name = short(name)
        near = [_ALIASES[name]] if name in _ALIASES else difflib.get_close_matches(name, keys, n=1)
        known = f"the nearest known one is '{near[0]}'" if near else "mskscreen train --help lists them all"
        raise ProtocolError(f"key '{name}' is unknown; {known}")


def _typed(name: str, kind: type, value: Any) -> Any:
    """A value from TOML or from a command line as the type of its key."""
    if kind is not str and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            _wrong(name, kind, value)
    if kind is float and type(value) is int and abs(value) < 1 << 1000:
        return float(value)
    if type(value) is not kind:
        _wrong(name, kind, value)
    return value


def _wrong(name: str, kind: type, value: Any) -> NoReturn:
    wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
    raise ProtocolError(f"key {name}: {short(repr(value))} is not {wanted}")


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if isinstance(value, str):
        if limits["among"] and value not in limits["among"]:
            raise ProtocolError(f"key {name}: '{short(value)}' is not one of {', '.join(limits['among'])}")
        if not value.isprintable() or not value:
            raise ProtocolError(f"key {name}: the text is empty or holds control characters")
    elif not (limits["low"] <= value <= limits["high"] and abs(value) < math.inf):
        raise ProtocolError(f"key {name}: {short(value)} lies outside {limits['low']:g} to {limits['high']:g}")
