"""A search on disk: which runs it consists of, and how far each of them is.

    search/plan.json              the protocols
    search/data.parquet           the manifest with the folds that every run has
    search/runs/DIGEST/           a run: what training writes, and besides
        events.jsonl              when and where it was begun, and how it ended
        model.onnx                the best weights, exported
        evaluation.parquet        predictions of the evaluation set
        ended.json                how it ended: its presence says that the run is never begun again

The folder is all there is: any executor may go on with what another one began.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from mskscreen.data.manifest import HELD_OUT, Manifest
from mskscreen.errors import DataError, ProtocolError, short
from mskscreen.lock import is_locked, locked
from mskscreen.search.space import Halving, Run, Space
from mskscreen.storage import write_text
from mskscreen.training.material import read_data
from mskscreen.training.protocol import Protocol

SCHEMA = 1
PLAN, DATA, EVENTS, ENDED, LOCK = "plan.json", "data.parquet", "events.jsonl", "ended.json", "search.lock"
# Seconds; `search status` looks at the lock of a run for less.
PATIENCE = 2.0
MODEL, DEVELOPMENT, EVALUATION = "model.onnx", "development.parquet", "evaluation.parquet"


class State(StrEnum):
    """How far a run is. STOPPED is an end, too: halving found it behind the others."""

    WAITING = "waiting"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Ending:
    """How a run ended; `reason` says why it failed or was stopped, `seconds` is the time it took in all."""

    state: State
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The runs of the search in `folder` on a manifest whose digest is `digest`."""

    folder: Path
    digest: str
    space: Space

    @classmethod
    def make(cls, folder: Path, data: Path, space: Space) -> Plan:
        """Write the plan of a new search, or of a further space, which joins those that the folder holds.

        `data` is a manifest or a folder of images; what every run trains on is the copy of the manifest, with its
        folds, in the folder of the search. Raises DataError where the folder holds a search on other data.
        """
        manifest = read_data(data, space.runs[0].protocol)
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        with locked(folder / "plan.lock", "the plan", wait=True):
            if (folder / PLAN).exists():
                earlier = cls.read(folder)
                if earlier.digest != manifest.digest:
                    raise DataError(
                        f"{folder}: holds a search on other data than {data}; choose another folder with --out"
                    )
                space = space.joined(earlier.space)
            if not (folder / DATA).exists():
                manifest.write(folder / DATA)
            plan = cls(folder, manifest.digest, space)
            write_text(folder / PLAN, plan._to_json())
        return plan

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of the search in `folder`. Raises DataError where there is none."""
        path = folder / PLAN
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value["schema"] != SCHEMA:
                raise DataError(
                    f"{path}: schema {short(value['schema'])} is not the schema {SCHEMA} of this version"
                )
            runs = tuple(Run(run["levels"], Protocol().replace(**run["protocol"])) for run in value["runs"])
            halving = Halving(**value["halving"]) if value["halving"] else None
            return cls(folder, value["digest"], Space(runs, halving))
        except FileNotFoundError:
            raise DataError(f"{folder}: holds no search; begin one with: mskscreen search run") from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
            ProtocolError,
        ) as error:
            raise DataError(
                f"{path}: not a plan of a search ({short(error, 200)}); begin the search again"
            ) from error

    def _to_json(self) -> str:
        halving = self.space.halving
        return json.dumps(
            {
                "schema": SCHEMA,
                "digest": self.digest,
                "halving": dataclasses.asdict(halving) if halving else None,
                "runs": [
                    {"folder": run.name, "levels": dict(run.levels), "protocol": dataclasses.asdict(run.protocol)}
                    for run in self.space.runs
                ],
            },
            indent=1,
        )

    @property
    def data(self) -> Path:
        """The manifest that every run trains on."""
        return self.folder / DATA

    @property
    def cache(self) -> Path:
        """Folder of the decoded images, which all runs share."""
        return self.folder / "cache"

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs in the order in which they are begun."""
        return self.space.runs

    @property
    def labels(self) -> str:
        """The label column that all runs are judged by: the one they learned, or `label` where they differ."""
        columns = {run.protocol.labels for run in self.runs}
        return columns.pop() if len(columns) == 1 else "label"

    def run(self, name: str) -> Run:
        """The run whose folder is `name`. Raises DataError where the search has none."""
        found = next((run for run in self.runs if run.name == name), None)
        if found is None:
            raise DataError(f"{self.folder / PLAN}: has no run '{name}'; give the command of its space again")
        return found

    def of(self, run: Run) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / run.name

    def todo(self, runs: Sequence[Run] | None = None, *, failed: bool = False) -> list[Run]:
        """Which of `runs` (else of all) have not ended; with `failed` those that did go on from their save."""
        runs = self.runs if runs is None else runs
        if failed:
            for run in runs:
                if (end := ending(self.of(run))) and end.state is State.FAILED:
                    (self.of(run) / ENDED).unlink()
        return [run for run in runs if ending(self.of(run)) is None]

    def held_out(self) -> Manifest:
        """The labelled images of the evaluation sets, which no run trains on and nothing is chosen by."""
        manifest = Manifest.read(self.data)
        rows = [
            row
            for row, (split, label) in enumerate(zip(manifest["split"], manifest[self.labels], strict=True))
            if split in HELD_OUT and label is not None
        ]
        return manifest.take(rows)


def ending(folder: Path) -> Ending | None:
    """How the run in `folder` ended, or None where it has not."""
    try:
        value = json.loads((folder / ENDED).read_text(encoding="utf-8"))
        return Ending(State(value["state"]), value["reason"], value["seconds"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{folder / ENDED}: cannot be read ({short(error, 200)}); delete it to run the cell again"
        ) from error


@contextmanager
def holding(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a run, so that it is trained and ended by one process at a time; the system frees it on any death.

    Waits for `patience` seconds, then raises DataError where another process holds it.
    """
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder / LOCK, "this run"))
                break
            except DataError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)
        yield


def is_held(folder: Path) -> bool:
    """Whether a process holds the run."""
    return is_locked(folder / LOCK)


def end(folder: Path, state: State, reason: str = "", *, where: str = "") -> Ending:
    """Write down how a run ended, which is done once: a second ending changes nothing. The run must be held."""
    if (before := ending(folder)) is not None:
        return before
    note(folder, "end", where, state=state, reason=reason)
    found = Ending(state, reason, spent(folder))
    write_text(folder / ENDED, json.dumps(dataclasses.asdict(found), indent=1))
    return found


def note(folder: Path, event: str, where: str, **more: Any) -> None:
    """Add a line to the events of a run: `begin`, `save` (stopped on request) or `end`."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "event": event, "where": where, **more}) + "\n"
    with (folder / EVENTS).open("a", encoding="utf-8") as stream:
        stream.write(line)


def events(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The events of a run in order; a line that is none, such as a last one that was cut off, is left out."""
    try:
        text = (folder / EVENTS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            event = json.loads(line)
            datetime.fromisoformat(event["time"])
            whole = "event" in event
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if whole:
            yield event


def spent(folder: Path, *, held: bool = False) -> float:
    """Seconds between the beginnings of the run and what followed them, which is now where the run is `held`.

    Attempts that were killed do not count.
    """
    found = list(events(folder))
    if held:
        found.append({"event": "now", "time": datetime.now(UTC).isoformat()})
    total = 0.0
    for before, after in pairwise(found):
        if before["event"] == "begin" and after["event"] != "begin":
            times = (datetime.fromisoformat(event["time"]) for event in (after, before))
            total += (next(times) - next(times)).total_seconds()
    return total
