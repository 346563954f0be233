"""A data set and a space so small that a cell takes seconds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from mura_lists import Study, write_lists

JOINTS = ("HAND", "WRIST")
PROTOCOL = """
architecture = "timm:test_resnet"
init = "random"
input_size = 32
augmentation = "none"
schedule = "constant"
rate = 3e-3
epochs = 2
batch = 8
precision = "f32"
"""
SPACE = """
protocol = "tiny.toml"
seeds = [0, 1]
[axes]
tasks = ["both", "abnormality"]
[[more]]
architecture = ["timm:no_such_network"]
"""


def small_data(root: Path) -> Path:
    """32 patients to train on and 12 to evaluate on: a stripe says the joint, a square the abnormality."""
    listed = [
        Study(
            f"XR_{JOINTS[i % 2]}", f"patient{i + (11184 if split == 'valid' else 1):05d}", 1, i // 2 % 2, 1, split
        )
        for split, patients in (("train", 32), ("valid", 12))
        for i in range(1, patients + 1)
    ]
    folder = write_lists(root, listed)
    for seed, study in enumerate(listed):
        image = np.random.default_rng(seed).integers(0, 90, (36, 36))
        if study.region == "XR_HAND":
            image[:, :8] += 120
        if study.label:
            image[12:26, 14:30] += 140
        Image.fromarray(image.astype(np.uint8)).save(folder / study.files[0])
    return folder


def small_space(folder: Path, text: str = SPACE, protocol: str = PROTOCOL) -> Path:
    """The space as a file, with its protocol beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.toml").write_text(protocol)
    (folder / "space.toml").write_text(text)
    return folder / "space.toml"
