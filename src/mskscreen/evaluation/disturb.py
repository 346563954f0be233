"""Disturbs images on purpose and predicts them again, for the robustness table."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mskscreen.errors import MskscreenError
from mskscreen.predictions import FLAG_ERROR, Prediction, Predictions, score

if TYPE_CHECKING:
    from mskscreen.inference import Screener

Disturbance = Callable[[np.ndarray], np.ndarray]


def find_image(root: Path, file: str) -> Path | None:
    """The file of a predictions row below `root`: as named, or by the end of its name; None where it is not there.

    A name that leads out of the folder, by `..` or by a link, is not followed.
    """
    folder = root.resolve()
    parts = Path(file).parts
    for candidate in (Path(file), *(folder.joinpath(*parts[k:]) for k in range(len(parts)))):
        try:
            path = candidate.resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def repredict(
    screener: Screener, base: Predictions, root: Path, disturbances: Mapping[str, Disturbance] | None = None
) -> Iterator[dict[str, Prediction]]:
    """For each image of `base` its row under every disturbance of the decoded pixels; images lie below `root`.

    An image that cannot be read, or could not in `base`, is a row with an error. The disturbance that changes
    nothing gives the row of `base`.
    """
    chosen = DISTURBANCES if disturbances is None else disturbances
    at = str(base.model.get("operating_point", "balanced"))
    for row in base:
        try:
            yield _disturbed(screener, row, root, chosen, at)
        except MskscreenError as error:
            broken = Prediction(row.file, row.study, patient=row.patient, flags=(FLAG_ERROR,), error=str(error))
            yield dict.fromkeys(chosen, broken)


def _disturbed(
    screener: Screener, row: Prediction, root: Path, disturbances: Mapping[str, Disturbance], at: str
) -> dict[str, Prediction]:
    from mskscreen.pixels import read_radiograph

    path = find_image(root, row.file)
    if path is None or row.error:
        raise MskscreenError(row.error or "the image is not in the folder given; name the folder of the images")
    radiograph = read_radiograph(path)
    batch = [
        screener.preprocessing(replace(radiograph, pixels=disturb(radiograph.pixels)))
        for disturb in disturbances.values()
    ]
    outputs = screener.engine.run(np.stack(batch))
    contract = screener.engine.contract
    return {
        name: replace(row, **score(contract, outputs["pred1"][k], outputs["pred2"][k], at=at))
        for k, name in enumerate(disturbances)
    }


def _jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def apply(pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer), np.float32) / 255

    return apply


def _rotated(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        turned = Image.fromarray(pixels.astype(np.float32)).rotate(degrees, Image.Resampling.BILINEAR)
        return np.asarray(turned, np.float32)

    return apply


def _noise(sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    def apply(pixels: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(pixels.shape)
        return np.clip(pixels + rng.normal(0, sigma, pixels.shape), 0, 1).astype(np.float32)

    return apply


def _contrast(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.clip((pixels - 0.5) * factor + 0.5, 0, 1).astype(np.float32)


# Pixels (rows, columns) in [0, 1], bone bright, to the same.
DISTURBANCES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "polarity inverted": lambda pixels: (1 - pixels).astype(np.float32),
    "rotated by 5 degrees": _rotated(5),
    "rotated by 15 degrees": _rotated(15),
    "rotated by 90 degrees": lambda pixels: np.ascontiguousarray(np.rot90(pixels)),
    "JPEG, quality 75": _jpeg(75),
    "JPEG, quality 30": _jpeg(30),
    "contrast x 0.7": _contrast(0.7),
    "contrast x 1.3": _contrast(1.3),
    "noise, sigma 0.02": _noise(0.02),
    "noise, sigma 0.05": _noise(0.05),
}
