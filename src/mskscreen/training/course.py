"""The course of a run: epoch after epoch, measured on the development fold and saved, from wherever it stands."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers.logger import Logger
from torch import Tensor

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError, ProtocolError
from mskscreen.networks.checkpoint import not_finite, save_checkpoint
from mskscreen.storage import discard_partials, write_text
from mskscreen.training.curves import draw_curves
from mskscreen.training.depthwise import QuickDepthwise
from mskscreen.training.development import score_fold
from mskscreen.training.learner import Begun, Learner, contract_of, precision
from mskscreen.training.loader import UNKNOWN, loader
from mskscreen.training.logs import close_loggers, log_epoch, open_loggers, write_history
from mskscreen.training.losses import ScreeningLoss, learned
from mskscreen.training.material import Material, preprocessing
from mskscreen.training.optimise import average, begin_epoch, build_optimiser, rate, set_rate
from mskscreen.training.protocol import BEST, Protocol
from mskscreen.training.sampling import RadiographSampler
from mskscreen.training.score import Scores, figures, write_predictions
from mskscreen.training.state import FILE, Position, load_state, read_position, require_same, save_state, writing

log = logging.getLogger(__name__)

LAST, DONE, PREDICTIONS, CURVES = "last.safetensors", "done.json", "development.parquet", "curves.png"
# A kill costs at most these seconds, however long an epoch takes.
SAVE_EVERY = 600.0


@dataclass(frozen=True)
class Progress:
    """Where a run is: told after every step, and after every epoch with the `metrics` of that epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    metrics: Mapping[str, float] | None = None


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    `finished` is False where it was stopped and can go on; `already` says that an earlier call had finished it.
    `metrics` are those of the best epoch on the development fold, `cost` what it took (`seconds`, `images`,
    `images_per_second`, `epochs`, `parameters`), `notes` sentences about the data. Of the processes of a
    distributed run only one is the `first`.
    """

    folder: Path
    finished: bool
    already: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first: bool = True


class Run:
    """A run in progress: what it learns, from what, and where it is."""

    def __init__(
        self,
        out: Path,
        protocol: Protocol,
        manifest: Manifest,
        begun: Begun,
        material: Material,
        fabric: Fabric,
        workers: int,
        report: Callable[[Progress], None],
        stop: Callable[[], bool],
    ) -> None:
        self.out, self.protocol, self.manifest, self.material = out, protocol, manifest, material
        self.fabric, self.stop = fabric, stop
        self.report = report if fabric.is_global_zero else lambda _: None
        training = material.training
        self.sampler = RadiographSampler(
            training.labels,
            training.joints,
            protocol.sampling,
            seed=protocol.seed,
            rank=fabric.global_rank,
            ranks=fabric.world_size,
        )
        self.draws = protocol.batch * protocol.accumulate
        self.steps = len(self.sampler) // self.draws
        self.batches = loader(training, self.sampler, batch=protocol.batch, workers=workers)
        self.notes = (*material.notes, *begun.notes)
        self.contract = partial(
            contract_of, out.resolve().name, protocol, manifest, preprocessing(protocol), notes=begun.notes
        )
        self.network = begun.network
        self.average = copy.deepcopy(self.network).requires_grad_(False) if protocol.averaging else None
        self.loss = ScreeningLoss(protocol, training.labels, training.joints)
        optimiser = build_optimiser(protocol, self.network, self.loss)
        # DDP shares the gradients of what asks for one now, for ever; what is frozen is so from _learn on.
        self.network.requires_grad_(True)
        self.learner, self.optimiser = fabric.setup(Learner(self.network, self.loss), optimiser)
        if self.average is not None:
            self.average.to(fabric.device)
        # Behind Lightning's move to the device, which what the optimiser remembers would not follow.
        computes = precision(protocol, cuda=fabric.device.type == "cuda")
        fresh = Position(protocol.digest, manifest.digest, fabric.world_size, computes)
        require_same(fabric, out, (fresh, read_position(out)))
        self.position = load_state(out, fresh, self._modules(), optimiser)
        lost = [out / name for name in (BEST, PREDICTIONS) if not (out / name).is_file()]
        if lost and self.position.best >= 0:
            raise DataError(
                f"{lost[0]}: is missing, and no later epoch may be better; "
                f"bring it back, or delete {FILE} to begin anew"
            )
        self.rate = 0.0
        self.loggers: list[Logger] = []
        if fabric.is_global_zero:
            discard_partials(out, ".safetensors")
            for note in self.notes:
                log.warning("%s", note)
            self.loggers = open_loggers(out, protocol, self.position.epoch * self.steps)

    def go(self) -> RunResult:
        """Train until the last epoch, until it no longer gets better, or until asked to stop."""
        while not self.position.finished:
            if not self._learn():
                self._save()
                return RunResult(self.out, False, notes=self.notes, first=self.fabric.is_global_zero)
            self._score()
        return self._conclude()

    def _learn(self) -> bool:
        """What is left of the present epoch; False where asked to stop before its end."""
        at, protocol = self.position, self.protocol
        begin_epoch(protocol, self.network, at.epoch)
        self.sampler.set_epoch(at.epoch, at.step * self.draws)
        batches = iter(self.batches)
        losses = [row["dev_loss"] for row in at.history]
        saved = time.monotonic()
        while at.step < self.steps:
            stop, save = self._told(time.monotonic() - saved)
            if stop:
                return False
            if save:
                self._save()
                saved = time.monotonic()
            began = time.monotonic()
            number = at.epoch * self.steps + at.step
            self.rate = rate(protocol, number, self.steps * protocol.epochs, losses)
            set_rate(self.optimiser, self.rate)
            # A seed for every step: what dropout draws depends on nothing that would have to be saved.
            torch.manual_seed(_seed(protocol.seed, number, self.fabric.global_rank))
            found = self._step(batches)
            if self.average is not None:
                average(self.average, self.network, protocol.averaging, number)
            at.sums = [total + value for total, value in zip(at.sums, found, strict=True)]
            at.step += 1
            seconds, images = time.monotonic() - began, self.draws * self.fabric.world_size
            at.seconds, at.images = at.seconds + seconds, at.images + images
            self.report(
                Progress(at.epoch, protocol.epochs, at.step, self.steps, found[0], images / max(seconds, 1e-9))
            )
        return True

    def _step(self, batches: Iterator[dict[str, Tensor]]) -> list[float]:
        """One step of the optimiser; returns its losses.

        Raises ProtocolError where the loss is not finite.
        """
        found = np.zeros(3)
        passes = [next(batches) for _ in range(self.protocol.accumulate)]
        known = self._known(passes)
        for number, batch in enumerate(passes, 1):
            with self.fabric.no_backward_sync(self.learner, enabled=number < len(passes)):
                losses = self._losses(self.fabric.to_device(batch), known)
                self.fabric.backward(losses[0] / self.protocol.accumulate)
            found += losses.detach().cpu().double().numpy() / self.protocol.accumulate
        self._check_finite(found[0])
        if self.protocol.clip:
            self.fabric.clip_gradients(
                self.learner, self.optimiser, max_norm=self.protocol.clip, error_if_nonfinite=False
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return found.tolist()

    def _known(self, passes: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """How many images of a pass have a known label, and a known joint type (2,): the mean of all in this step.

        By it, and not by what it knows itself, each pass of each process divides: so all images weigh the same.
        """
        counts = [float(sum((batch[name] != UNKNOWN).sum() for batch in passes)) for name in ("label", "joint")]
        return self._mean(counts).clamp(min=1 / self.fabric.world_size) / len(passes)

    def _losses(self, batch: Mapping[str, Tensor], known: Tensor) -> Tensor:
        """Losses (3,) of a batch.

        Raises ProtocolError where a norm has one value alone to take the spread of.
        """
        try:
            with QuickDepthwise():
                losses: Tensor = self.learner(batch["image"], batch["label"], batch["joint"], known)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ProtocolError(
                f"key batch: one image of this input_size becomes a single cell in {self.protocol.architecture}, "
                "of which a norm learns nothing; take a batch of 2 or more"
            ) from error
        return losses

    def _score(self) -> None:
        """Measure the network on the development fold, end the epoch, and save what is there."""
        at, protocol, tasks = self.position, self.protocol, learned(self.protocol)
        began = time.monotonic()
        self._share_buffers()
        network = self.network if self.average is None else self.average
        result, loss = score_fold(self.fabric, network, self.loss, self.material, protocol)
        self._check_finite(loss)
        self._check_weights()
        found = figures(result, self.material.fold, protocol.labels, tasks)
        means = (self._mean(at.sums) / self.steps).tolist()
        row = {"epoch": at.epoch + 1, "rate": self.rate, "loss": means[0]}
        row |= {f"loss_{task}": means[1 + ("abnormality", "joint").index(task)] for task in tasks}
        at.history.append({**row, "dev_loss": loss, **found})
        at.epoch, at.step, at.sums = at.epoch + 1, 0, [0.0, 0.0, 0.0]
        better = at.best < 0 or self._rank(at.history[-1]) > self._rank(at.history[at.best])
        if better:
            at.best = len(at.history) - 1
        waited = len(at.history) - 1 - at.best
        at.finished = at.epoch == protocol.epochs or bool(protocol.patience and waited >= protocol.patience)
        at.seconds += time.monotonic() - began
        if self.fabric.is_global_zero:
            with writing(self.out):
                self._keep(result, found, best=better)
            log_epoch(self.loggers, at.history[-1], at.epoch * self.steps)
        self._write_state()
        self.report(
            Progress(at.epoch - 1, protocol.epochs, self.steps, self.steps, means[0], self._speed(), found)
        )

    def _share_buffers(self) -> None:
        """Give every process the buffers of the first, which are those that are saved.

        DDP does so before a pass that is synchronised; in the passes after it each process sees images of its own.
        """
        if self.fabric.world_size > 1:
            for module in self._modules().values():
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, 0)

    def _rank(self, row: Mapping[str, float]) -> tuple[float, float]:
        """What makes an epoch better: the figure, and where it is the same, the loss."""
        task = "joint" if self.protocol.tasks == "joint" else "abnormality"
        return row[f"{task}_auroc"], -row["dev_loss"]

    def _keep(self, result: Scores, found: Mapping[str, float], *, best: bool) -> None:
        """Write the weights of this epoch, its predictions where it is the best, and the figures of all."""
        network = self.network if self.average is None else self.average
        contract = self.contract(found)
        if best:
            save_checkpoint(network, contract, self.out / BEST)
            write_predictions(self.out / PREDICTIONS, result, self.material.fold, self.material.errors, contract)
        save_checkpoint(network, contract, self.out / LAST)
        write_history(self.out, self.position.history)
        draw_curves(self.position.history, self.out / CURVES)

    def _save(self) -> None:
        """Save what is there between two steps."""
        self._share_buffers()
        self._check_weights()
        self._write_state()

    def _write_state(self) -> None:
        if self.fabric.is_global_zero:
            # Lightning's wrapper of the optimiser passes its state through.
            save_state(self.out, self.position, self._modules(), self.optimiser.optimizer)

    def _modules(self) -> dict[str, torch.nn.Module]:
        modules: dict[str, torch.nn.Module] = {"network": self.network, "loss": self.loss}
        return modules if self.average is None else {**modules, "average": self.average}

    def _conclude(self) -> RunResult:
        """Write done.json; the state has served its purpose."""
        at = self.position
        best = {name: value for name, value in at.history[at.best].items() if name != "rate"}
        cost = {
            "seconds": round(at.seconds, 3),
            "images": at.images,
            "images_per_second": round(self._speed(), 3),
            "epochs": at.epoch,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "processes": self.fabric.world_size,
            "device": self.fabric.device.type,
            "precision": at.precision,
        }
        done = {
            "protocol": at.protocol,
            "data": at.data,
            "metrics": best,
            "cost": cost,
            "notes": self.notes,
            "intended_use": NOT_FOR_DIAGNOSIS,
        }
        if self.fabric.is_global_zero:
            close_loggers(self.loggers)
            with writing(self.out):
                write_text(self.out / DONE, json.dumps(done, indent=1) + "\n")
            (self.out / FILE).unlink(missing_ok=True)
        self.fabric.barrier()
        return RunResult(
            self.out,
            finished=True,
            metrics=best,
            cost=cost,
            notes=self.notes,
            first=self.fabric.is_global_zero,
        )

    def _speed(self) -> float:
        return self.position.images / max(self.position.seconds, 1e-9)

    def _told(self, unsaved: float) -> tuple[bool, bool]:
        """Whether to stop and, after so many seconds, to save: what the first process says, all do."""
        told = self.stop(), unsaved > SAVE_EVERY
        return self.fabric.broadcast(told) if self.fabric.world_size > 1 else told

    def _mean(self, values: list[float]) -> Tensor:
        """The mean over all processes."""
        found = self.fabric.all_reduce(torch.tensor(values, device=self.fabric.device), reduce_op="mean")
        assert isinstance(found, Tensor)  # noqa: S101 - what went in
        return found

    def _check_finite(self, loss: float) -> None:
        """Raise ProtocolError, in every process, where the loss of one is not finite.

        One that ended alone would leave the others waiting for it.
        """
        if self.fabric.world_size > 1:
            loss = self._mean([loss]).item()
        if not math.isfinite(loss):
            self._diverged(f"the loss is {loss}")

    def _check_weights(self) -> None:
        """Raise ProtocolError where a weight is not finite: no loss shows what the last step has done.

        The processes hold the same weights, and so come to the same end.
        """
        for module in self._modules().values():
            if name := not_finite(module.state_dict()):
                self._diverged(f"the tensor {name} is not finite")

    def _diverged(self, how: str) -> NoReturn:
        where = f"epoch {self.position.epoch + 1}, step {self.position.step + 1}"
        raise ProtocolError(
            f"{self.out}: {how} at {where}; what was saved before is whole: "
            "train anew with another --out and a lower --rate, with --clip 1 or with --precision f32"
        )


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
