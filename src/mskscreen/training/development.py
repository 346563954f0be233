"""The development fold, scored by all processes of a run together."""

from __future__ import annotations

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from mskscreen.networks import ScreeningNetwork
from mskscreen.training.learner import scores
from mskscreen.training.loader import joint_numbers, loader
from mskscreen.training.losses import ScreeningLoss
from mskscreen.training.material import Material
from mskscreen.training.protocol import Protocol
from mskscreen.training.score import Scores


@torch.no_grad()
def score_fold(
    fabric: Fabric, network: ScreeningNetwork, loss: ScreeningLoss, material: Material, protocol: Protocol
) -> tuple[Scores, float]:
    """Scores of the whole fold and their loss, on every process; each runs the images that `material` gives it.

    The network, which must be the same in all, is left in the mode of evaluation.
    """
    network.eval()
    rows: list[np.ndarray] = []
    for batch in loader(material.development, None, batch=protocol.batch):
        with fabric.autocast():
            pred1, pred2 = scores(network, fabric.to_device(batch["image"]))
        table = torch.cat([pred1.float(), pred2.float()], 1).cpu().numpy()
        # float32 counts rows exactly up to 16 million.
        rows.append(np.column_stack([material.mine[batch["row"].numpy()].astype(np.float32), table]))
    table = np.concatenate(rows)
    # Processes may hold one image more or less than others, and gather tables of one size.
    size = -(-len(material.fold) // fabric.world_size)
    padded = np.pad(table, ((0, size - len(table)), (0, 0)), constant_values=-1)
    gathered = fabric.all_gather(torch.from_numpy(padded).to(fabric.device))
    assert isinstance(gathered, Tensor)  # noqa: S101 - what went in
    result = Scores.of(gathered.reshape(-1, padded.shape[1]).cpu().numpy())
    labels = material.fold.numbers(protocol.labels)[result.row]
    joints = joint_numbers(material.fold)[result.row]
    tensors = (torch.from_numpy(array).to(fabric.device) for array in (result.pred1, result.pred2, labels, joints))
    return result, float(loss(*tensors)[0])
