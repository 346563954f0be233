"""The network that a protocol asks for, what of it a training step runs, and the contract it is saved with."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from mskscreen.contract import METADATA_KEY, TASKS, ModelContract, Provenance
from mskscreen.data.manifest import Manifest
from mskscreen.errors import ProtocolError
from mskscreen.inference.machine import machine_kind
from mskscreen.networks import Architecture, ScreeningNetwork, build_network
from mskscreen.networks.checkpoint import load_checkpoint
from mskscreen.networks.weights import imagenet_at_hand
from mskscreen.pixels import Preprocessing
from mskscreen.training.losses import ScreeningLoss, learned
from mskscreen.training.optimise import begin_epoch
from mskscreen.training.protocol import BEST, INITS, Protocol

log = logging.getLogger(__name__)

_PACKAGES = ("mskscreen", "torch", "timm", "lightning")
_MAY_HAVE_SEEN = (
    "The run began with weights that may have seen images of the development fold, whose figures then flatter it."
)
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


class Learner(nn.Module):
    """Network and loss as one module, so that a distributed run keeps all that learns in step."""

    def __init__(self, network: ScreeningNetwork, loss: ScreeningLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, image: Tensor, label: Tensor, joint: Tensor, known: Tensor) -> Tensor:
        return self.loss(*scores(self.network, image), label, joint, known)


def scores(network: ScreeningNetwork, image: Tensor) -> tuple[Tensor, Tensor]:
    """`pred1` (B, 2) and `pred2` (B, 7) of images (B, 1, H, W), without the map, which no loss here uses."""
    hidden = network.dropout(functional.relu(network.shared(network.pooled(network.features(image)))))
    return network.abnormality(hidden), network.joint(hidden)


@dataclass(frozen=True)
class Begun:
    """What a run begins with: its network, and notes on what its weights may have seen."""

    network: ScreeningNetwork
    notes: tuple[str, ...]


def begin(protocol: Protocol, manifest: Manifest, *, saved: bool = False) -> Begun:
    """Begin a run, or go on with one that has `saved` itself: what it began with may then be gone.

    Raises ProtocolError or ModelError where the protocol asks for weights or modules that cannot be had.
    """
    gone = saved and protocol.init not in INITS and not Path(protocol.init).exists()
    notes = (_MAY_HAVE_SEEN,) if gone else heritage(protocol, manifest)
    network = start_network(protocol.replace(init="random") if saved else protocol)
    begin_epoch(protocol, network, 0)
    return Begun(network, notes)


def start_network(protocol: Protocol) -> ScreeningNetwork:
    """The network as a run begins with it.

    An output that is not learned is zero: it then says of every image that it knows nothing.
    Raises ProtocolError where an earlier run has another architecture, ModelError where weights do not fit.
    """
    if protocol.init == "imagenet" and not imagenet_at_hand(protocol.architecture):
        log.warning("timm's cache lacks the ImageNet weights of %s: fetching them", protocol.architecture)
    torch.manual_seed(protocol.seed)
    named = protocol.init in INITS
    earlier = None if named else _checkpoint(Path(protocol.init))
    network = build_network(
        protocol.architecture,
        init=protocol.init if named else "random" if earlier else Path(protocol.init),
        dropout=protocol.dropout,
    )
    if earlier:
        other, contract = load_checkpoint(earlier)
        if str(other.architecture) != str(network.architecture):
            raise ProtocolError(
                f"key init: '{protocol.init}' holds the architecture {contract.architecture}, "
                f"not {network.architecture}; name a run of the same one"
            )
        network.load_state_dict({k: v for k, v in other.state_dict().items() if not k.startswith("novelty.")})
    for task, layer in (("abnormality", network.abnormality), ("joint", network.joint)):
        if task not in learned(protocol):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return network.to(memory_format=torch.channels_last)


def heritage(protocol: Protocol, manifest: Manifest) -> tuple[str, ...]:
    """What is to be said of the weights that a run begins with, where they may have seen its development fold.

    Raises ProtocolError where they have: an earlier run on the same manifest held out another fold.
    """
    if protocol.init in INITS:
        return ()
    path = _checkpoint(Path(protocol.init))
    earlier = load_checkpoint(path)[1].provenance if path else None
    fold = earlier.protocol.get("fold") if earlier and earlier.data_digest == manifest.digest else None
    if earlier is None or fold is None:
        return (_MAY_HAVE_SEEN,)
    if fold != protocol.fold:
        raise ProtocolError(
            f"key init: '{protocol.init}' has learned from fold {protocol.fold}, for it held out fold {fold} of "
            f"the same data; name a run that held out fold {protocol.fold}, or train with --fold {fold}"
        )
    return (_MAY_HAVE_SEEN,) if _MAY_HAVE_SEEN in earlier.notes else ()


def _checkpoint(path: Path) -> Path | None:
    """The checkpoint that `path`, a run's folder or a file, stands for; None for a file of other weights."""
    if path.is_dir():
        if not (path / BEST).is_file():
            raise ProtocolError(
                f"key init: '{path}' holds no {BEST}; name the folder of a run or a file of weights"
            )
        return path / BEST
    if not path.is_file():
        raise ProtocolError(f"key init: '{path}' is neither {', '.join(INITS)} nor a file or folder")
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return path if METADATA_KEY in (file.metadata() or {}) else None
    except (OSError, SafetensorError) as error:
        raise ProtocolError(f"key init: '{path}' cannot be read ({error}); fetch it again") from error


def precision(protocol: Protocol, *, cuda: bool) -> str:
    """The precision of a run, `bf16` or `f32`: `auto` is bf16 where the processor computes in it."""
    if protocol.precision != "auto":
        return protocol.precision
    able = torch.cuda.is_bf16_supported() if cuda else bool(_BF16 & set(machine_kind().split("+")))
    return "bf16" if able else "f32"


def contract_of(
    name: str,
    protocol: Protocol,
    manifest: Manifest,
    preprocessing: Preprocessing,
    found: Mapping[str, float],
    notes: Sequence[str] = (),
) -> ModelContract:
    """The contract of the weights that reached the figures `found` on the development fold."""
    untaught = [f"The {task} output" for task in TASKS if task not in learned(protocol)]
    return ModelContract(
        name=name,
        architecture=str(Architecture.parse(protocol.architecture)),
        preprocessing=str(preprocessing),
        input_size=(preprocessing.height, preprocessing.width),
        provenance=Provenance(
            data=f"source {manifest.source}, development fold {protocol.fold}, labels '{protocol.labels}'",
            data_digest=manifest.digest,
            seed=protocol.seed,
            versions={package: importlib.metadata.version(package) for package in _PACKAGES},
            protocol=dataclasses.asdict(protocol),
            figures=dict(found),
            notes=" ".join([*(f"{output} was not trained and says nothing." for output in untaught), *notes]),
        ),
    )
