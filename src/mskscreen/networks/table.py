"""The six networks of the release as one table, and the string that names an architecture everywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mskscreen.errors import ModelError, short

POOLS = ("avg", "gem")
STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Published:
    """What the release says about one of its networks; `mparams` in 10^6, `gflops` in 10^9 multiply-adds."""

    title: str
    backbone: str
    input_size: int
    mparams: float
    gflops: float


# Chakravarty et al., MedNeurIPS 2019, and the model release of 2020 (Open Model Zoo, pull request 1645).
NETWORKS: dict[str, Published] = {
    "inception_v3": Published("Inception v3", "inception_v3", 299, 21.991, 5.73),
    "xception": Published("Xception", "legacy_xception", 299, 21.01, 8.44),
    "densenet121": Published("DenseNet-121", "densenet121", 224, 7.057, 2.90),
    "resnet18": Published("ResNet-18", "resnet18", 224, 11.229, 1.83),
    "vgg16_bn": Published("VGG16", "vgg16_bn", 224, 134.680, 15.53),
    "vgg19_bn": Published("VGG19", "vgg19_bn", 224, 139.992, 19.69),
}

_LONGEST = 200
_GRAMMAR = re.compile(
    r"(?P<name>[a-z0-9_]+|timm:[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)?)(?:\((?P<options>[a-z0-9=,]*)\))?"
)


@dataclass(frozen=True)
class Architecture:
    """A network by name, how it pools its last feature map, and the stride of that map in input pixels.

    As text `NAME` or `NAME(pool=gem,stride=16)`, where NAME is one of the six or `timm:MODEL`. A finer stride
    comes from dilation; with `merge=16` instead, from adding the last map to an earlier one of that stride. With
    `mirror=yes` the last feature map is the mean of those of the image and of its mirror image, once trained.
    `str` and `parse` are inverse; defaults are not written.
    """

    name: str
    pool: str = "avg"
    stride: int = 32
    merged: bool = False
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.name not in NETWORKS and not self.name.startswith("timm:"):
            raise ModelError(
                f"architecture '{self.name}' is unknown; use one of {', '.join(NETWORKS)}, or timm:MODEL"
            )
        if self.pool not in POOLS:
            raise ModelError(f"architecture '{self.name}': pool '{self.pool}' is not one of {', '.join(POOLS)}")
        if self.stride not in STRIDES:
            raise ModelError(f"architecture '{self.name}': stride {self.stride} is not one of 8, 16, 32")
        if self.merged and self.stride == 32:
            raise ModelError(f"architecture '{self.name}': merge takes a stride below 32")

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read an architecture string.

        Raises ModelError for an unknown name, option or value.
        """
        match = _GRAMMAR.fullmatch(text) if len(text) <= _LONGEST else None
        if match is None:
            raise ModelError(
                f"architecture '{short(text)}' is unknown; write one of {', '.join(NETWORKS)} or timm:MODEL, "
                "with options as in resnet18(pool=gem,stride=16)"
            )
        architecture = cls(match["name"])
        for option in filter(None, (match["options"] or "").split(",")):
            key, _, value = option.partition("=")
            if key == "pool":
                architecture = replace(architecture, pool=value)
            elif key in ("stride", "merge") and value.isdecimal():
                architecture = replace(architecture, stride=int(value), merged=key == "merge")
            elif option == "mirror=yes":
                architecture = replace(architecture, mirrored=True)
            else:
                raise ModelError(
                    f"architecture '{text}': option '{option}' is none of pool=..., stride=..., merge=... and "
                    "mirror=yes"
                )
        return architecture

    def __str__(self) -> str:
        options = [f"pool={self.pool}"] if self.pool != "avg" else []
        options += [f"{'merge' if self.merged else 'stride'}={self.stride}"] if self.stride != 32 else []
        options += ["mirror=yes"] if self.mirrored else []
        return self.name + (f"({','.join(options)})" if options else "")

    @property
    def backbone(self) -> str:
        """Name of the backbone in timm."""
        return NETWORKS[self.name].backbone if self.name in NETWORKS else self.name.removeprefix("timm:")
