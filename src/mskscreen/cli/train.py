"""`mskscreen train`: one training run from a protocol, into a folder that can be stopped and goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.errors import ProtocolError
from mskscreen.training.protocol import BEST, Protocol, described, differences

if TYPE_CHECKING:
    from mskscreen.training.run import Progress, RunResult

KEYS = "Keys of the protocol, each as --key VALUE:\n\n" + "\n\n".join(
    f"--{name.replace('_', '-')} {default}: {says}" for name, default, says in described()
)


def train(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Manifest with folds (`data split`), or a folder.", exists=True)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")],
    protocol: Annotated[str, typer.Option(help="A TOML file, or a shipped one: paper, mura, demo.")] = "paper",
    cache: Annotated[Path | None, typer.Option(help="Folder of decoded images; else in the user's cache.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images, for each device.")] = 0,
    accelerator: Annotated[str, typer.Option(help="Lightning's: auto, cpu, gpu, ...")] = "auto",
    devices: Annotated[str, typer.Option(help="Lightning's: how many, or which (0,1), on each machine.")] = "1",
    num_nodes: Annotated[int, typer.Option(min=1, help="Lightning's: how many machines.")] = 1,
    strategy: Annotated[str, typer.Option(help="Lightning's: auto or ddp.")] = "auto",
) -> None:
    """Train a network; any key of the protocol may be given as --key VALUE.

    Started again, a run that was stopped or killed goes on where it was, and a finished one says so.
    """
    with common.needs("train"):
        from mskscreen.training import run

        chosen = _changed(Protocol.from_toml(protocol), context.args)
    options = {
        "accelerator": accelerator,
        "devices": int(devices) if devices.lstrip("-").isdecimal() else devices,
        "num_nodes": num_nodes,
        "strategy": strategy,
    }
    with _Screen(early=chosen.patience > 0) as screen, common.interruptible(signal.SIGTERM) as interrupted:
        result = run.train(
            data,
            chosen,
            out,
            cache=cache,
            workers=workers,
            lightning=options,
            report=screen.report,
            decoded=screen.decoded,
            stop=interrupted,
        )
    _conclude(result)


def _changed(protocol: Protocol, arguments: list[str]) -> Protocol:
    """The protocol with the keys of the command line. Raises BadParameter where it cannot have them."""
    try:
        return protocol.replace(**differences(arguments)) if arguments else protocol
    except ProtocolError as error:
        raise typer.BadParameter(str(error)) from error


class _Screen:
    """Bars on a terminal, and a line an epoch everywhere; a run may end `early`, before its last epoch."""

    def __init__(self, *, early: bool) -> None:
        self.bound = "at most " if early else ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        visible = common.err.is_terminal and not common.err.quiet
        self.bars = Bars(*columns, console=common.err, disable=not visible, transient=True)
        self.decoding = self.bars.add_task("decoding", total=None, visible=False)
        self.training = self.bars.add_task("training", total=None, visible=False)
        self.began: tuple[float, int] | None = None

    def __enter__(self) -> _Screen:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def decoded(self, count: int) -> None:
        self.bars.update(self.decoding, visible=True, advance=count)

    def report(self, at: Progress) -> None:
        done, total = at.epoch * at.steps + at.step, at.epochs * at.steps
        self.bars.update(self.decoding, visible=False)
        text = f"epoch {at.epoch + 1}/{at.epochs}, loss {at.loss:.3f}, {at.images_per_second:.0f} images/s"
        self.bars.update(self.training, visible=True, completed=done, total=total, description=text)
        now = time.monotonic()
        self.began = self.began or (now, done - 1)
        if at.metrics is not None:
            left = (now - self.began[0]) / max(1, done - self.began[1]) * (total - done)
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in at.metrics.items())
            common.err.print(f"{text}; {figures}; {self.bound}{left / 60:.0f} min left")


def _conclude(result: RunResult) -> None:
    if not result.first:
        return
    if not result.finished:
        common.err.print(f"{result.folder}: stopped and saved; the same command goes on from here")
        return
    if result.already:
        common.err.print(f"{result.folder}: is finished already; nothing to do")
    row: dict[str, Any] = {"run": str(result.folder), **result.metrics}
    row |= {name: result.cost[name] for name in ("epochs", "seconds", "images_per_second") if name in result.cost}
    common.show([row], common.Format.TABLE, title=f"Best epoch on the development fold; {NOT_FOR_DIAGNOSIS}")
    common.err.print(f"next: mskscreen export {result.folder / BEST}")
