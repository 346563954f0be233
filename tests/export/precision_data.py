"""A data set of random plates with a manifest, and a small model whose scores depend on them."""

from pathlib import Path

import numpy as np
from PIL import Image

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.manifest import Manifest


def write_plates(folder, patients=24, *, views=2, name="plates"):
    """Plates of 40 x 40 pixels, two views a patient; brightness tells abnormal, stripes tell the joint."""
    rng, rows = np.random.default_rng(0), []
    for patient in range(patients):
        joint, label = patient % 2, patient // 2 % 2
        for view in range(views):
            path = Path(name) / f"p{patient}" / f"{view}.png"
            (folder / path.parent).mkdir(parents=True, exist_ok=True)
            stripes = 40 * np.sin(np.arange(40) * (0.5 + joint))[:, None]
            noise = rng.normal(0, 20, (40, 40))
            pixels = 80 + 60 * label + stripes + noise
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / path)
            rows.append(
                {
                    "image": str(path),
                    "study": str(path.parent),
                    "patient": f"patient{patient}",
                    "joint": JOINT_LABELS[joint],
                    "label": label,
                    "split": "train",
                }
            )
    return Manifest.from_rows(folder, rows, "plates")


def with_folds(manifest):
    """Half of the patients develop (fold 0), half train (fold 1)."""
    return manifest.replace({**manifest.columns, "fold": [int(name[7:]) // 4 % 2 for name in manifest["patient"]]})
