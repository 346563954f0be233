"""A copy of MURA that a tiny network learns in seconds; as a script, runs of it that are killed and go on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from image_files import limb
from mura_lists import Study, write_lists

from mskscreen.data.cache import CacheContract
from mskscreen.data.cache_build import build_cache
from mskscreen.training import course
from mskscreen.training.material import preprocessing, read_data
from mskscreen.training.protocol import Protocol
from mskscreen.training.run import train

JOINTS = ("HAND", "WRIST", "ELBOW")
# All that draws at random, averages or carries something from step to step.
TINY = Protocol(
    architecture="timm:test_resnet",
    init="random",
    input_size=32,
    augmentation="flip(0.5)|contrast(0.2)",
    sampling="class",
    task_weights="uncertainty",
    epochs=3,
    batch=8,
    accumulate=2,
    rate=3e-3,
    averaging=0.9,
    freeze="backbone.conv1(1)",
    precision="f32",
)


def small_mura(
    root: Path, patients: int = 40, joints: Sequence[str] = JOINTS, labels: Sequence[int] = (0, 1)
) -> Path:
    """A stripe says the joint, a bright square the abnormality; two images a patient."""
    listed = []
    for i in range(1, patients + 1):
        joint, label = joints[i % len(joints)], labels[(i // len(joints)) % len(labels)]
        listed.append(Study(f"XR_{joint}", f"patient{i:05d}", 1, label, 2))
    folder = write_lists(root, listed)
    pictures = [(study, file) for study in listed for file in study.files]
    for seed, (study, file) in enumerate(pictures):
        image = limb(seed)
        image[:, : 5 * JOINTS.index(study.region.removeprefix("XR_"))] = 160
        if study.label:
            image[16:32, 14:30] = 250
        Image.fromarray(image).save(folder / file)
    return folder


def decode(data: Path, cache: Path, protocol: Protocol = TINY) -> Path:
    """Decode the images in this process, which takes less time than to start others for so few."""
    contract = CacheContract(str(preprocessing(protocol)))
    build_cache(read_data(data, protocol), cache, contract)
    return cache


def forked(action: Callable[[], object]) -> int:
    """Exit code of an action in a process of its own, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except SystemExit as ending:
            os._exit(int(ending.code or 0))
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_between_steps(data: Path, out: Path, cache: Path) -> None:
    """Killed in the second epoch, with a state saved after every step."""
    course.SAVE_EVERY = 0.0
    train(data, TINY, out, cache=cache, report=lambda at: at.epoch == 1 and at.step == 3 and die())


def killed_before_saving(data: Path, out: Path, cache: Path) -> None:
    """Killed at the end of the second epoch, when its weights are written and its state is not."""
    course.save_state = lambda *_: die()
    train(data, TINY, out, cache=cache)


def killed_after_epoch(data: Path, out: Path, cache: Path) -> None:
    """Killed at the end of the last epoch, before anything says that the run is finished."""
    train(data, TINY, out, cache=cache, report=lambda at: at.metrics and at.epoch == 2 and die())


def terminated(data: Path, out: Path, cache: Path) -> None:
    """`mskscreen train` gets SIGTERM in its second step."""
    from mskscreen.cli import main
    from mskscreen.cli import train as verb

    verb._Screen.report = lambda _, at: at.step == 2 and os.kill(os.getpid(), signal.SIGTERM)
    (out.parent / "tiny.toml").write_text(TINY.to_toml())
    sys.argv = ["mskscreen", "train", str(data), "--out", str(out), "--cache", str(cache)]
    sys.argv += ["--protocol", str(out.parent / "tiny.toml")]
    main.run()


if __name__ == "__main__":
    where = list(map(Path, sys.argv[1:]))
    killed, stopped = (where[0], where[1] / "killed", where[2]), (where[0], where[1] / "stopped", where[2])
    codes = [
        forked(lambda action=action: action(*killed))
        for action in (killed_between_steps, killed_before_saving, killed_after_epoch)
    ]
    print(*codes, forked(lambda: terminated(*stopped)))
