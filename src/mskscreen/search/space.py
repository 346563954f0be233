"""The space of a search as TOML: axes whose product gives the cells, each a protocol once for every seed.

protocol = "paper.toml"               # shipped, or a path relative to this file
seeds = [0, 1, 2]                     # every cell once for each; an axis `fold` repeats cells as seeds do

[axes]
architecture = ["resnet18", "densenet121"]
init = ["imagenet", "random"]         # or a file or run, by a path relative to this file
size = [                              # a level may change several keys at once
  {name = "small", input_size = 128, batch = 64},
  {name = "large", input_size = 320},
]

[[more]]                              # a further product, over axes of its own
architecture = ["timm:tf_efficientnet_lite0"]
tasks = ["abnormality", "joint"]

[[skip]]                              # leaves out the cells that have all of these levels
architecture = "densenet121"
init = "random"

[halving]                             # of the runs that reach epoch 2, 6, 18 ... the best third goes on
factor = 3
first = 2
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mskscreen.errors import ProtocolError, short
from mskscreen.training.protocol import INITS, Protocol, read_toml

SHIPPED = Path(__file__).parent / "spaces"
_KEYS = ("protocol", "seeds", "axes", "more", "skip", "halving")
# Keys whose values repeat a cell: its figures are means over them.
REPEATS = ("seed", "fold")
_MOST_CELLS = 100_000
# Enough of a SHA-256 that no two of a million protocols share it.
_DIGITS = 16
# A level that says nothing without its axis.
_MUTE = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?|none")

Level = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """One protocol of a search: its cell, which all seeds and folds share, and its level on each axis."""

    levels: Mapping[str, str]
    protocol: Protocol

    @property
    def key(self) -> tuple[str, ...]:
        """What tells its cell from others: its levels, except that on an axis `fold`."""
        return tuple(self._own.values())

    @property
    def cell(self) -> str:
        """Name of the cell: its levels, a number with its axis, as `epochs=2`."""
        told = (f"{axis}={level}" if _MUTE.fullmatch(level) else level for axis, level in self._own.items())
        return " ".join(told) or self.protocol.architecture

    @property
    def _own(self) -> dict[str, str]:
        return {axis: level for axis, level in self.levels.items() if axis not in REPEATS}

    @property
    def name(self) -> str:
        """Name of the folder: the digest of the whole protocol."""
        return self.protocol.digest[:_DIGITS]


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (Li et al., arXiv:1810.05934): epochs `first` x `factor`^k are rungs."""

    factor: int = 3
    first: int = 1

    def __post_init__(self) -> None:
        for key, low in (("factor", 2), ("first", 1)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ProtocolError(
                    f"table halving: key {key} is {short(repr(value))}; write a whole number from {low} on"
                )

    def rungs(self, epochs: int) -> list[int]:
        """Epochs at which a run of so many epochs may be stopped."""
        powers = (self.first * self.factor**k for k in itertools.count())
        return list(itertools.takewhile(lambda rung: rung < epochs, powers))


@dataclass(frozen=True)
class Space:
    """The runs of a search, each once, those of the first seed first."""

    runs: tuple[Run, ...]
    halving: Halving | None = None

    @classmethod
    def from_toml(cls, path: Path | str) -> Space:
        """Read a space, or a shipped one by its name (`paper-space` or `paper-space.toml`).

        Raises ProtocolError that names the file and the key.
        """
        file, value = read_toml("space", path, SHIPPED)
        try:
            return _space(value, file.parent)
        except ProtocolError as error:
            raise ProtocolError(f"space '{path}': {error}") from error

    @property
    def cells(self) -> list[str]:
        """Names of the cells in order."""
        return list(dict.fromkeys(run.cell for run in self.runs))

    def joined(self, earlier: Space) -> Space:
        """The runs of this space and, behind them, those of an earlier one that it lacks, all with the same axes.

        The keys in which cells differ that would have one name become axes. Halving is that of this space.
        """
        mine = {run.name for run in self.runs}
        runs = [*self.runs, *(run for run in earlier.runs if run.name not in mine)]
        axes = list(dict.fromkeys(axis for run in runs for axis in run.levels))
        first: dict[str, Protocol] = {}
        keys = [Run(_levels(run, axes), run.protocol).key for run in runs]
        likes = [first.setdefault(" ".join(key), run.protocol) for key, run in zip(keys, runs, strict=True)]
        axes += [
            key.name
            for key in fields(Protocol)
            if key.name not in (*REPEATS, *axes)
            and any(
                getattr(run.protocol, key.name) != getattr(like, key.name)
                for run, like in zip(runs, likes, strict=True)
            )
        ]
        return Space(tuple(Run(_levels(run, axes), run.protocol) for run in runs), self.halving)


def _space(value: Mapping[str, Any], folder: Path) -> Space:
    if unknown := next((key for key in value if key not in _KEYS), None):
        unknown = short(unknown)
        nearest = difflib.get_close_matches(unknown, _KEYS, n=1, cutoff=0)[0]
        raise ProtocolError(f"key '{unknown}' is unknown; the nearest known one is '{nearest}'")
    products = [_axes(table) for table in (_table(value.get("axes", {}), "axes"), *_tables(value, "more"))]
    base = _protocol(value.get("protocol", "paper.toml"), folder)
    halving = _table(value.get("halving", {}), "halving")
    if unknown := next((key for key in halving if key not in ("factor", "first")), None):
        raise ProtocolError(f"table halving: key '{short(unknown)}' is unknown; it has factor and first")
    if (count := sum(math.prod(map(len, axes.values())) for axes in products)) > _MOST_CELLS:
        raise ProtocolError(f"its axes give {count:,} cells, more than {_MOST_CELLS:,}; leave out levels")
    named = list(dict.fromkeys(axis for axes in products for axis in axes))
    cells = [cell for axes in products for cell in _cells(_completed(axes, named, base))]
    skips = _tables(value, "skip")
    for skip in skips:
        if not any(_has(levels, skip) for levels, _ in cells):
            wanted = short(", ".join(f"{axis} = {level}" for axis, level in skip.items()))
            raise ProtocolError(f"table skip: no cell has {wanted}")
    # A cell that is left out need not be one that can be trained.
    kept = [
        Run(levels, _found(base.replace(**changes), folder))
        for levels, changes in cells
        if not any(_has(levels, skip) for skip in skips)
    ]
    if not kept:
        raise ProtocolError("every cell is skipped; leave out a table skip")
    _require_names(kept)
    runs: dict[str, Run] = {}
    for seed in _seeds(value.get("seeds", [0])):
        for like in kept:
            run = Run(like.levels, like.protocol.replace(seed=seed))
            runs.setdefault(run.name, run)
    return Space(tuple(runs.values()), Halving(**halving) if "halving" in value else None)


def _protocol(name: Any, folder: Path) -> Protocol:
    if not isinstance(name, str):
        raise ProtocolError("key protocol: write the name of a protocol, such as 'paper.toml'")
    beside = folder / name
    return Protocol.from_toml(beside if beside.is_file() else name)


def _found(protocol: Protocol, folder: Path) -> Protocol:
    """The protocol with the whole path of what it begins with: workers have working folders of their own."""
    if protocol.init in INITS:
        return protocol
    places = (folder / protocol.init, Path(protocol.init))
    there = next((place for place in places if place.exists()), None)
    return protocol.replace(init=str(there.resolve())) if there else protocol


def _seeds(value: Any) -> list[int]:
    if not isinstance(value, list) or not value or not all(type(seed) is int for seed in value):
        raise ProtocolError("key seeds: write a list of whole numbers, such as [0, 1, 2]")
    return value


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"key '{name}' must be a table: [{name}]")
    return value


def _tables(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    tables = value.get(name, [])
    if not isinstance(tables, list):
        raise ProtocolError(f"key '{name}' must be a list of tables: [[{name}]]")
    return [_table(table, name) for table in tables]


def _axes(table: Mapping[str, Any]) -> dict[str, list[Level]]:
    """The levels of each axis: their names, and what they change in the protocol."""
    axes = {}
    for axis, values in table.items():
        if not isinstance(values, list) or not values:
            raise ProtocolError(f"axis '{short(axis)}': write a list of levels")
        levels = [_level(axis, value) for value in values]
        names = [name for name, _ in levels]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ProtocolError(f"axis '{short(axis)}': level '{short(twice)}' is given twice")
        axes[axis] = levels
    return axes


def _level(axis: str, value: Any) -> Level:
    if isinstance(value, dict):
        changes = {key: item for key, item in value.items() if key != "name"}
        if "fold" in changes:
            raise ProtocolError(
                f"axis '{short(axis)}': key 'fold' repeats cells; give it an axis alone: fold = [0, 1]"
            )
        return str(value.get("name", " ".join(map(str, changes.values())))), changes
    return str(value), {axis: value}


def _completed(axes: Mapping[str, list[Level]], named: Sequence[str], base: Protocol) -> dict[str, list[Level]]:
    """All axes of all products: on one that a product leaves out its cells have the value of the protocol."""
    return {axis: axes.get(axis) or [(_untold(base, axis), {})] for axis in named}


def _untold(protocol: Protocol, axis: str) -> str:
    """Level of a cell on an axis that its own space does not name."""
    return str(getattr(protocol, axis, "-"))


def _levels(run: Run, axes: Sequence[str]) -> dict[str, str]:
    return {axis: run.levels.get(axis, _untold(run.protocol, axis)) for axis in axes}


def _require_names(runs: Sequence[Run]) -> None:
    by_name: dict[str, Protocol] = {}
    for run in runs:
        protocol = run.protocol.replace(fold=0)
        if by_name.setdefault(run.cell, protocol) != protocol:
            raise ProtocolError(f"two cells are named '{short(run.cell)}', but differ; name their levels")


def _cells(axes: Mapping[str, Sequence[Level]]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Each cell of a product: its level on each axis, and what it changes in the protocol."""
    for levels in itertools.product(*axes.values()):
        changes: dict[str, Any] = {}
        for axis, (_, change) in zip(axes, levels, strict=True):
            if clash := next((key for key in change if key in changes or key == "seed"), None):
                raise ProtocolError(
                    f"axis '{short(axis)}': key '{short(clash)}' is set by another axis, or by seeds"
                )
            changes |= change
        yield {axis: name for axis, (name, _) in zip(axes, levels, strict=True)}, changes


def _has(levels: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    return all(levels.get(axis) == str(level) for axis, level in wanted.items())
