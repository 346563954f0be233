"""As a script, a distributed run of two processes; each writes down the weights that it ends with, or its error.

With a fourth argument each has a folder of its own, as on machines that share none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from safetensors.torch import save_file
from small_mura import TINY

from mskscreen.errors import MskscreenError
from mskscreen.training import course
from mskscreen.training.run import RunResult, train


def main(data: Path, out: Path, cache: Path, *divided: Path) -> None:
    rank = os.environ.get("LOCAL_RANK", "0")
    conclude = course.Run._conclude

    def written(run: course.Run) -> RunResult:
        weights = {
            f"{name}.{key}": tensor.detach().contiguous()
            for name, module in run._modules().items()
            for key, tensor in module.state_dict().items()
        }
        save_file(weights, out.parent / f"process-{rank}.safetensors")
        return conclude(run)

    course.Run._conclude = written
    protocol = TINY.replace(epochs=1, freeze="none")
    mine = out / rank if divided else out
    try:
        train(data, protocol, mine, cache=cache, lightning={"accelerator": "cpu", "devices": 2})
    except MskscreenError as error:
        (out.parent / f"process-{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
