"""As a script, a distributed run of two processes; each writes down the weights that it ends with, or its error.

With a fourth argument `divided` each has a folder of its own, as on machines that share none; with `diverging` the
second has a loss that is not finite in its second step.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from safetensors.torch import save_file
from small_mura import TINY
from torch import Tensor

from mskscreen.errors import MskscreenError
from mskscreen.training import course
from mskscreen.training.run import RunResult, train


def main(data: Path, out: Path, cache: Path, how: str = "") -> None:
    rank = os.environ.get("LOCAL_RANK", "0")
    conclude, losses = course.Run._conclude, course.Run._losses

    def written(run: course.Run) -> RunResult:
        weights = {
            f"{name}.{key}": tensor.detach().contiguous()
            for name, module in run._modules().items()
            for key, tensor in module.state_dict().items()
        }
        save_file(weights, out.parent / f"process-{rank}.safetensors")
        return conclude(run)

    def diverging(run: course.Run, *batch: Any) -> Tensor:
        return losses(run, *batch) * (math.nan if run.position.step == 1 else 1)

    course.Run._conclude = written
    if how == "diverging" and rank == "1":
        course.Run._losses = diverging
    # The second epoch frees what the first one froze.
    protocol = TINY.replace(epochs=2)
    mine = out / rank if how == "divided" else out
    try:
        train(data, protocol, mine, cache=cache, lightning={"accelerator": "cpu", "devices": 2})
    except MskscreenError as error:
        (out.parent / f"process-{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
