"""The state of a run that can go on: one safetensors file with its JSON inside, so both are of the same moment.

No pickle is ever written or read: a run folder may come from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mskscreen.errors import DataError, ProtocolError
from mskscreen.networks.checkpoint import save_tensors
from mskscreen.storage import MAKE_ROOM, disk_full

if TYPE_CHECKING:
    from lightning.fabric import Fabric

FILE = "state.safetensors"
_SCHEMA = 2
_KEY = "mskscreen.state"
_OPTIMISER = "optimiser"


@dataclass
class Position:
    """Where a run is. `protocol`, `data`, `processes` and `precision` (bf16 or f32) say of which run this is.

    `epoch` counts whole epochs, `step` the steps of the present one, `sums` (3,) its losses so far; `history` has
    the row of every epoch in metrics.csv; `best` is the number of the best one, -1 before the first.
    """

    protocol: str
    data: str
    processes: int = 1
    precision: str = "f32"
    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    best: int = -1
    seconds: float = 0.0
    images: int = 0
    finished: bool = False


def save_state(
    folder: Path, position: Position, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> None:
    """Write the state whole or not at all."""
    tensors = {
        f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()
    }
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {
            f"{_OPTIMISER}.{index}.{key}": value for key, value in values.items() if isinstance(value, Tensor)
        }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = json.dumps({"schema": _SCHEMA, **asdict(position)})
    with writing(folder):
        save_tensors(plain, folder / FILE, {_KEY: described})


def read_position(folder: Path) -> Position | None:
    """Where the run in `folder` was when it saved itself last; None where it has left nothing that can be read."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            return _position((file.metadata() or {})[_KEY])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def require_same(fabric: Fabric, folder: Path, seen: object) -> None:
    """Raise DataError in every process where one sees something else in the folder of the run than the first.

    A run of several machines would otherwise go on from several states.
    """
    same = torch.tensor(float(fabric.broadcast(seen) == seen), device=fabric.device)
    together = fabric.all_reduce(same, reduce_op="sum")
    assert isinstance(together, Tensor)  # noqa: S101 - what went in
    if together < fabric.world_size:
        raise DataError(
            f"{folder}: the processes do not see the same run; start all with the same protocol and data, on "
            "machines of one kind, with --out a folder that they share"
        )


def load_state(
    folder: Path, expected: Position, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer
) -> Position:
    """Load what an earlier run left into modules and optimiser; `expected` where it left nothing.

    Raises DataError where the file is damaged, ProtocolError where it is of another run.
    """
    path = folder / FILE
    if not path.exists():
        return expected
    try:
        with safe_open(path, framework="pt") as file:
            position = _position((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a whole state of a run; delete it to begin anew") from error
    for name in ("protocol", "data", "processes"):
        if getattr(position, name) != getattr(expected, name):
            raise ProtocolError(f"{path}: the run was started with other {name}; choose another folder with --out")
    if position.precision != expected.precision:
        raise ProtocolError(
            f"{path}: the run was started in {position.precision}, but here it would go on in "
            f"{expected.precision}; use a machine like the first, or choose another folder with --out"
        )
    try:
        for name, module in modules.items():
            prefix = f"{name}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        _load_optimiser(optimiser, tensors)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: its tensors do not fit the network; delete it to begin anew") from error
    return position


def _position(text: str) -> Position:
    try:
        value = dict(json.loads(text))
    except RecursionError as error:
        raise ValueError("nested without end") from error
    if value.pop("schema") != _SCHEMA or set(value) != {f.name for f in fields(Position)}:
        raise ValueError("another schema")
    plain = Position("", "")
    for name, item in value.items():
        if not isinstance(item, type(getattr(plain, name))):
            raise TypeError(name)
    return Position(**value)


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        room, _, rest = name.partition(".")
        if room == _OPTIMISER:
            index, _, key = rest.partition(".")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # In the layout of the parameter, as in a run that was never stopped: sums then round alike.
                value = torch.empty_like(parameter, device="cpu", dtype=value.dtype).copy_(value)
            elif value.numel() != 1:
                raise ValueError(name)
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what a full disk, or a folder that is none, does to any writer into one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        remedy = (
            f"what was saved before is whole: {MAKE_ROOM}"
            if disk_full(error)
            else "choose another folder with --out"
        )
        raise DataError(f"{folder}: cannot be written ({reason}); {remedy}") from error
