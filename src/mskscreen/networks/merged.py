"""A backbone whose last feature map is merged with a finer one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mskscreen.errors import ModelError

WIDTH = 512


class MergedBackbone(nn.Module):
    """A timm backbone with its last feature map, enlarged, added to the one of `stride` pixels a cell.

    One level of a feature pyramid (Lin et al., arXiv:1612.03144). A cell keeps what the deepest layers know and
    is as fine as dilation would make it, at the cost of the coarse map: dilated, the last layers of a small
    network take as long as all others together. Takes (B, 3, H, W), gives (B, 512, h, w), nowhere negative.

    Raises ModelError where the backbone has no feature map of that stride.
    """

    num_features = WIDTH

    def __init__(self, trunk: Any, stride: int, name: str) -> None:
        super().__init__()
        strides, widths = trunk.feature_info.reduction(), trunk.feature_info.channels()
        offered = [value for value in strides if value < strides[-1]]
        if stride not in offered:
            raise ModelError(
                f"architecture '{name}': merge is {stride}, but the finer maps have strides {offered}"
            )
        self.trunk = trunk
        self.pretrained_cfg = trunk.pretrained_cfg
        self._fine = strides.index(stride)
        self.fine = nn.Conv2d(widths[self._fine], WIDTH, 1, bias=False)
        self.deep = nn.Conv2d(widths[-1], WIDTH, 1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward_features(self, image: Tensor) -> Tensor:
        """The merged feature map."""
        maps = self.trunk(image)
        fine = self.fine(maps[self._fine])
        deep = functional.interpolate(self.deep(maps[-1]), size=fine.shape[2:], mode="bilinear")
        return functional.relu(self.norm(fine + deep))
