"""Every method of explanation behind one call: a model input and a class in, a map and its cost out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mskscreen.errors import DataError, ModelError, short
from mskscreen.inference.engines import Engine
from mskscreen.inference.precision import sha256_of
from mskscreen.inference.tail import Tail
from mskscreen.saliency import cam, patches, rise
from mskscreen.saliency.target import ABNORMAL, Explained, Score, Target

Advance = Callable[[int], None]
TITLES = {
    "hirescam": "HiResCAM",
    "gradcam": "Grad-CAM",
    "cam": "CAM",
    "rise": "RISE",
    "occlusion": "occlusion",
    "integrated-gradients": "integrated gradients",
}
_INTEGRATED = "integrated-gradients"
NO_CHECKPOINT = f"{_INTEGRATED} needs the checkpoint of the model; name it with --checkpoint"
# Of scores in f32, as a share of the largest; a model of fewer bits rounds ten times as much.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Settings:
    """Settings of the methods that have any; `patches` a side for occlusion, `steps` of integrated gradients."""

    rise: rise.Settings = field(default_factory=rise.Settings)
    patches: int = 8
    steps: int = 32

    def of(self, method: str) -> dict[str, Any]:
        """Those that decide the map of a method."""
        chosen = {
            "rise": asdict(self.rise),
            "occlusion": {"patches": self.patches},
            _INTEGRATED: {"steps": self.steps},
        }
        return chosen.get(method, {})

    def most_passes(self, method: str) -> int:
        """How many forward passes a map of this method costs at most, as far as that is known beforehand."""
        costs = {
            "rise": self.rise.most,
            "occlusion": (2 * self.patches - 1) ** 2 + 1,
            _INTEGRATED: 3 * self.steps,
        }
        return costs.get(method, 1)


@dataclass(frozen=True)
class Explainer:
    """Explains what `engine` says of one model input at a time.

    `checkpoint` is the .safetensors file that the model was exported from, for integrated gradients.
    """

    engine: Engine
    settings: Settings = Settings()
    checkpoint: Path | None = None

    def __call__(
        self,
        image: npt.NDArray[np.float32],
        method: str,
        target: Target,
        advance: Advance = lambda _: None,
    ) -> Explained:
        """The map of one `image` (1, H, W) for `target`, in units of its log-odds.

        Raises DataError for an unknown method and ModelError where the model does not allow it.
        """
        if method == "rise":
            return rise.rise(self.score(target), image, self.settings.rise, advance)
        if method == "occlusion":
            return patches.occlusion(self.score(target), image, self.settings.patches, advance)
        if method == _INTEGRATED:
            return self._integrated(image, target)
        if method not in cam.FORMULAS:
            raise DataError(f"method '{method}' is unknown; choose from {', '.join(TITLES)}")
        return self._activation(image, method, target)

    def require(self, method: str, target: Target) -> None:
        """Raise ModelError where the model has no plain CAM, or integrated gradients lack its checkpoint.

        That is known before an image is scored.
        """
        if method == _INTEGRATED:
            _ = self._network
        if method == "cam" and not self.tail.linear(target.output):
            raise ModelError(
                f"{self.engine.contract.title}: plain CAM asks for one linear layer behind a global "
                "average, and this model has more; use the method hirescam"
            )

    def score(self, target: Target) -> Score:
        """The log-odds of a class as a function of model inputs (n, 1, H, W)."""
        return lambda batch: target.log_odds(self.engine.run(batch))

    @cached_property
    def tail(self) -> Tail:
        """The layers behind the last feature map, read from the model's graph."""
        if self.engine.address:
            raise ModelError(
                f"{self.engine.address}: is on a server, which shows no layers; use the method rise or occlusion, "
                "or name the model's file"
            )
        return Tail.read(self.engine.path)

    @cached_property
    def _network(self) -> Any:
        if self.checkpoint is None:
            raise ModelError(NO_CHECKPOINT)
        from mskscreen.networks.checkpoint import load_checkpoint

        network, contract = load_checkpoint(self.checkpoint)
        model = self.engine.contract
        if (contract.architecture, contract.preprocessing) != (model.architecture, model.preprocessing):
            raise ModelError(
                f"checkpoint '{self.checkpoint}' is a '{short(contract.architecture)}' and not what {model.title} "
                "was exported from"
            )
        return network

    @cached_property
    def checkpoint_digest(self) -> str | None:
        """SHA-256 of the checkpoint, of which there may be gigabytes: taken once."""
        return None if self.checkpoint is None else sha256_of(self.checkpoint)

    def _refuse_other_weights(self, network: Any, image: npt.NDArray[np.float32]) -> None:
        from mskscreen.networks.attribution import scores

        outputs = self.engine.run(image[None])
        tolerance = _TOLERANCE if self.engine.precision == "f32" else 10 * _TOLERANCE
        for name, wanted in scores(network, image).items():
            if np.abs(outputs[name] - wanted).max() > tolerance * (1 + np.abs(wanted).max()):
                raise ModelError(
                    f"checkpoint '{self.checkpoint}' gives other scores than {self.engine.contract.title}: "
                    "its weights are others; name the checkpoint that the model was exported from"
                )

    def _activation(self, image: npt.NDArray[np.float32], method: str, target: Target) -> Explained:
        made = self.engine.contract.map
        if method == "hirescam" and target == ABNORMAL and made and made.method == "hirescam":
            return Explained(self.engine.run(image[None])["map"][0, 0], 1)
        self.require(method, target)
        features = self.tail.features(image)
        direction = target.direction(self.tail.scores(features, target.output))
        gradient = self.tail.gradient(features, target.output, direction)
        return Explained(cam.FORMULAS[method](features, gradient).astype(np.float32), 1)

    def _integrated(self, image: npt.NDArray[np.float32], target: Target) -> Explained:
        network = self._network
        from mskscreen.networks.attribution import integrated_gradients

        self._refuse_other_weights(network, image)
        steps = self.settings.steps
        values = integrated_gradients(network, image, target.output, target.index, steps)
        # A backward pass costs about two forward ones.
        return Explained(values, 3 * steps)
