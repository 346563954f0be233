"""Batches for training, from a manifest and its cache.

    dataset = RadiographDataset(manifest.take(training_rows(manifest, 0)), cache, Augmentation.parse("flip(0.5)"))
    sampler = RadiographSampler(dataset.labels, dataset.joints, "class", seed=1)
    for batch in loader(dataset, sampler, batch=32, workers=2): ...

The images of a batch depend on seed and epoch alone, not on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mskscreen.anatomy import JOINT_LABELS
from mskscreen.data.cache import Cache
from mskscreen.data.manifest import Manifest
from mskscreen.errors import DataError
from mskscreen.training.augment import Augmentation
from mskscreen.training.sampling import Draw, RadiographSampler

UNKNOWN = -1


def joint_numbers(manifest: Manifest) -> np.ndarray:
    """Index of the joint type of each image (n,), -1 where unknown."""
    index = {name: number for number, name in enumerate(JOINT_LABELS)}
    return np.array([index.get(name, UNKNOWN) for name in manifest["joint"]], np.int64)


class RadiographDataset(Dataset[dict[str, Tensor]]):
    """The images of a manifest that the cache could decode.

    An item is a dict of `image` float32 (1, H, W) in [0, 1], and int64 scalars: `label` (0, 1), `joint` (index of
    the joint type), both -1 where unknown, and `row` in the manifest. An item asked for by number is not
    augmented; one asked for by a Draw is, with the seed of the draw. `labels` names the label column; `dropped` is
    how many images could not be decoded. Raises DataError where the cache is stale or no image is left.
    """

    def __init__(
        self, manifest: Manifest, cache: Cache, augmentation: Augmentation | None = None, labels: str = "label"
    ) -> None:
        cached = cache.rows(manifest)
        self.rows = np.flatnonzero(cached >= 0)
        self.dropped = len(manifest) - len(self.rows)
        if not len(self.rows):
            raise DataError(f"{cache.path.name}: none of the {len(manifest)} images could be decoded; audit them")
        self.cache, self.augmentation = cache, augmentation
        self._cached = cached[self.rows]
        self.labels = manifest.numbers(labels, UNKNOWN)[self.rows]
        self.joints = joint_numbers(manifest)[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: Draw | int) -> dict[str, Tensor]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[Draw | int]) -> list[dict[str, Tensor]]:
        """Several items in one look at the cache; DataLoader calls it for a whole batch."""
        rows = [item.row if isinstance(item, Draw) else item for item in items]
        images = torch.from_numpy(self.cache.read(self._cached[rows]))[:, None]
        return [
            {
                "image": self._augmented(image, item),
                "label": torch.tensor(self.labels[row]),
                "joint": torch.tensor(self.joints[row]),
                "row": torch.tensor(self.rows[row]),
            }
            for image, row, item in zip(images, rows, items, strict=True)
        ]

    def _augmented(self, image: Tensor, item: Draw | int) -> Tensor:
        if self.augmentation is None or not isinstance(item, Draw):
            return image
        return self.augmentation(image, item.seed)


def loader(
    dataset: RadiographDataset, sampler: RadiographSampler | None, *, batch: int, workers: int = 0
) -> DataLoader[dict[str, Tensor]]:
    """Batches of a dataset: the draws of `sampler` without the last short batch, or every image in order.

    A batch is a dict of tensors with a first axis of `batch` images.
    """
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        # A fork would copy the locks of the engines' and Arrow's threads in whatever state they are.
        multiprocessing_context="spawn" if workers else None,
        drop_last=sampler is not None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # Its own generator: a loader must not advance the random state that weights are drawn from.
        generator=torch.Generator().manual_seed(0),
    )
