"""`mskscreen search`: train a space of protocols on one machine or on a cluster, and read the result."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.cli import common
from mskscreen.cli.common import Exit, Format, FormatOption, Resamples, err, needs, show

if TYPE_CHECKING:
    from mskscreen.search.plan import Plan
    from mskscreen.search.space import Run


app = typer.Typer(
    cls=common.group_with("run"),
    help="Train a space of protocols, on one machine or many, and read the result: mskscreen search DATA "
    "[--space SPACE] [--out DIR] is short for search run, whose --help tells all options.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="SEARCH", help="Folder of a search.", exists=True)]


@app.command()
def run(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="A manifest with folds, or a folder of images.", exists=True)],
    space: Annotated[str, typer.Option(help="A TOML file, or the name of a shipped space.")] = "paper-space.toml",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the search; one to go on with.")] = Path(
        "search"
    ),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and what they cost; train none.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time on this machine.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images, for each run.")] = 0,
    ray: Annotated[str | None, typer.Option(help="Use a Ray cluster: its address, or auto.")] = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="Processors of each run on Ray.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="Graphics processors of each run on Ray.")] = 0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Begin failed runs again.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Train every cell of a space; the same command goes on after any stop, and trains no finished cell again.

    Exit code 0 says that all ended well, 3 that some failed or have not ended: `search status` says why.
    """
    if ray is None:
        common.refuse_idle(context, "without --ray", "cpus", "gpus")
    else:
        common.refuse_idle(context, "with --ray", "jobs")
    with needs("train"):
        from mskscreen.search.plan import Plan
        from mskscreen.search.space import Space
        from mskscreen.training.material import read_data
    found = Space.from_toml(space)
    if dry_run:
        plan = Plan(out, "", found)
        _show_costs(plan, read_data(data, found.runs[0].protocol), form)
        return
    plan = Plan.make(out, data, found)
    runs = [plan.run(run.name) for run in found.runs]
    todo = plan.todo(runs, failed=retry_failed)
    if not todo:
        err.print(f"{out}: all {len(runs)} runs have ended already; nothing to do")
    else:
        execute = _executor(ray, jobs, cpus, gpus)
        with common.interruptible(signal.SIGTERM) as stop, common.progress("training", len(todo)) as advance:
            if not execute(plan, todo, workers=workers, stop=stop, ended=partial(_tell, plan, advance)):
                err.print("stopped; what was begun is saved, and the same command goes on")
    raise typer.Exit(_report_ends(plan, runs))


@app.command()
def status(folder: Folder, form: FormatOption = Format.TABLE) -> None:
    """Show what is waiting, running, done, stopped or failed, why, and how long the rest will train."""
    with needs("train"):
        from mskscreen.data.manifest import Manifest
        from mskscreen.search.cost import costs
        from mskscreen.search.plan import Plan
        from mskscreen.search.status import seconds_left, standings
    plan = Plan.read(folder)
    found = standings(plan, costs(plan, Manifest.read(plan.data)))
    rows = [
        {
            "run": standing.run.name,
            "cell": standing.run.cell,
            "seed": standing.run.protocol.seed,
            "state": standing.state,
            "epochs": f"{standing.epoch}/{standing.run.protocol.epochs}",
            "development": standing.score,
            "taken": _time(standing.seconds),
            "left": _time(standing.seconds_left),
            "where": standing.where if standing.state == "running" else "",
            "reason": standing.reason,
        }
        for standing in found
    ]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(s.state for s in found).items())
    show(
        rows,
        form,
        title=f"{len(found)} runs: {counts}; {_about(plan)} {_time(seconds_left(found))} of training left",
    )


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; else SEARCH/report.")] = None,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time the models on this CPU.")] = True,
    resamples: Resamples = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
) -> None:
    """Write leaderboard, Pareto front, the effect of each axis and the tests of the best against the rest."""
    with needs("train"):
        from mskscreen.search.latency import ROUNDS, latencies
        from mskscreen.search.plan import Plan
        from mskscreen.search.report import MARKDOWN, write_report
        from mskscreen.search.results import gather
    plan = Plan.read(folder)
    out = out or folder / "report"
    common.to_make(out / MARKDOWN)
    with err.status("reading the predictions"):
        findings = gather(plan)
    with common.progress("timing the models", ROUNDS + 1) as advance:
        timed = latencies(plan, findings, measured=advance) if latency else {}
    with err.status("resampling patients"):
        sections = write_report(plan, findings, timed, out, resamples=resamples, seed=seed)
    board = sections[0]
    show([dict(zip(board.header, row, strict=True)) for row in board.rows], Format.TABLE, title=board.title)
    err.print(f"{out}: report.md, report.html and CSV written; {NOT_FOR_DIAGNOSIS}")


@app.command()
def ensemble(
    folder: Folder,
    most: Annotated[int, typer.Option(min=1, help="At most so many choices of a model.")] = 10,
    resamples: Resamples = 2000,
    form: FormatOption = Format.TABLE,
) -> None:
    """Choose models greedily by the development fold, and score their mean on the evaluation set."""
    with needs("train"):
        from mskscreen.search.ensemble import FILE, command, select, write
        from mskscreen.search.plan import Plan
        from mskscreen.search.results import gather
    plan = Plan.read(folder)
    common.to_write(folder / FILE)
    chosen = select(plan, gather(plan), most=most, resamples=resamples)
    write(plan, chosen)
    rows = [
        {"cell": result.run.cell, "seed": result.run.protocol.seed, "weight": weight, "development": result.score}
        for result, weight in chosen.members
    ]
    show(rows, form, title=f"development AUROC: {' -> '.join(f'{score:.4f}' for score in chosen.development)}")
    for name, figures in (("best single", chosen.single), ("ensemble", chosen.together)):
        if figures:
            err.print(f"evaluation set, {name}: AUROC {figures['auroc']}, accuracy {figures['accuracy']}")
    if chosen.pair:
        err.print(f"ensemble minus best single: AUROC {chosen.pair.differences['auroc']}")
    err.print(f"{folder / FILE}: written; {NOT_FOR_DIAGNOSIS}; to use it:")
    err.print(command(plan, chosen))


def _show_costs(plan: Plan, manifest: Any, form: Format) -> None:
    from mskscreen.search.cost import costs
    from mskscreen.search.plan import State, ending

    with err.status("counting"):
        found = costs(plan, manifest)
    ends = {run.name: ending(plan.of(run)) for run in plan.runs}
    rows = [
        {
            "run": run.name,
            "cell": run.cell,
            "seed": run.protocol.seed,
            "state": str(end.state if (end := ends[run.name]) else State.WAITING),
            "input": found[run.name].size,
            "mparams": found[run.name].complexity.parameters / 1e6,
            "gflops": found[run.name].complexity.gflops,
            "images": found[run.name].images,
            "petaflops": found[run.name].petaflops,
            "hours": found[run.name].seconds / 3600,
        }
        for run in plan.runs
    ]
    left = [run for run in plan.runs if ends[run.name] is None]
    seconds = sum(found[run.name].seconds for run in left)
    counts = f"{len(plan.space.cells)} cells, {len(rows)} runs, {len(left)} of them not ended"
    show(rows, form, title=f"{counts}: {_about(plan)} {_time(seconds)} of training one by one")
    for problem, count in Counter(found[run.name].problem for run in left).items():
        if problem:
            err.print(f"{count} runs: {problem}")


def _executor(ray: str | None, jobs: int, cpus: float, gpus: float) -> Callable[..., bool]:
    if ray is None:
        from mskscreen.search.local import run_here

        return partial(run_here, jobs=jobs)
    with needs("cluster"):
        from mskscreen.search.cluster import run_on_ray
    return partial(run_on_ray, address=ray, cpus=cpus, gpus=gpus)


def _tell(plan: Plan, advance: Any, run: Run) -> None:
    from mskscreen.search.plan import ending

    end = ending(plan.of(run))
    if end is not None:
        advance(1)
        because = f": {end.reason}" if end.reason else ""
        err.print(f"{end.state}: {run.cell}, seed {run.protocol.seed}{because}")


def _report_ends(plan: Plan, runs: list[Run]) -> Exit:
    from mskscreen.search.plan import State, ending

    ends = [ending(plan.of(run)) for run in runs]
    counts = Counter(str(end.state) if end else "not ended" for end in ends)
    err.print(f"{plan.folder}: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    return Exit.SOME_FAILED if any(end is None or end.state is State.FAILED for end in ends) else Exit.OK


def _about(plan: Plan) -> str:
    """What stands before a time that halving or early stopping would shorten, and before any other."""
    early = plan.space.halving or any(run.protocol.patience for run in plan.runs)
    return "at most about" if early else "about"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
