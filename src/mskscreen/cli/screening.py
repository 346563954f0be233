"""A run over many images: its progress, its end, and what is left to say of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mskscreen.cli import common

if TYPE_CHECKING:
    from mskscreen.predictions import JointTally, Prediction


def _joint_tally() -> JointTally:
    from mskscreen.predictions import JointTally

    return JointTally()


@dataclass
class Run:
    """What became of the images of this run."""

    total: int
    done: int = 0
    failed: int = 0
    stopped: bool = False
    burned_in: int = 0
    joints: JointTally = field(default_factory=_joint_tally)

    def watch(self, rows: Iterator[Prediction]) -> Iterator[Prediction]:
        """Pass rows on, with a progress bar, until they end or the user presses Ctrl-C."""
        from mskscreen.pixels import FLAG_BURNED_IN

        with (
            common.interruptible() as interrupted,
            common.progress("screening", self.total) as advance,
        ):
            for row in rows:
                self.done += 1
                self.failed += row.error is not None
                self.burned_in += FLAG_BURNED_IN in row.flags
                self.joints.add(row)
                advance(1)
                yield row
                if interrupted():
                    self.stopped = True
                    break

    def report(self) -> common.Exit:
        """Say what is left to say on stderr."""
        mixed = self.joints.mixed
        if mixed:
            number, *joints = next(iter(mixed.values()))
            common.alarm.print(
                f"{len(mixed)} of {self.joints.studies} studies hold images of several joints, as that of image "
                f"{number} of {' and '.join(sorted(joints))}: each is one row of their mean, "
                "flagged mixed-joints; --study-by none keeps images apart"
            )
        if self.stopped:
            common.alarm.print(f"stopped after {self.done} of {self.total} images")
            return common.Exit.FAILURE
        if self.failed:
            common.alarm.print(f"{self.failed} of {self.total} images could not be scored; their rows say why")
            return common.Exit.SOME_FAILED
        return common.Exit.OK
