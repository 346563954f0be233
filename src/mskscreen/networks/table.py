"""The six networks of the release as one table, and the string that names an architecture everywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mskscreen.errors import ModelError

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
    file: str
    size: int
    sha256: str


# Chakravarty et al., MedNeurIPS 2019, and the model release of 2020 (Open Model Zoo, pull request 1645).
NETWORKS: dict[str, Published] = {
    "inception_v3": Published(
        *("Inception v3", "inception_v3", 299, 21.991, 5.73, "inception.onnx", 88182778),
        "5b590422f2123dc1c5b1c53b9e6862f2e03e3cf800550c0fe97f655fc3b54962",
    ),
    "xception": Published(
        *("Xception", "legacy_xception", 299, 21.01, 8.44, "xception.onnx", 84305991),
        "2aa41950f27eefe2e865167d7c0d18fb68bee2de799e5f6895a7d2b2e2d35580",
    ),
    "densenet121": Published(
        *("DenseNet-121", "densenet121", 224, 7.057, 2.90, "densenet.onnx", 28680803),
        "e73bdad296f8b226c5cb556b73fb794b19494fafb442e5e68fca29b84cfa6d64",
    ),
    "resnet18": Published(
        *("ResNet-18", "resnet18", 224, 11.229, 1.83, "resnet.onnx", 44968586),
        "59e456a08f13ab94df1ea04b8f1b922a259bd1fe9c66a40884c0fb960a0f3b36",
    ),
    "vgg16_bn": Published(
        *("VGG16", "vgg16_bn", 224, 134.680, 15.53, "vgg16.onnx", 538763987),
        "f660f56099da085cd41f066f8d83a9d8fe0d8ecaf97987e8ea77ddae86ade7eb",
    ),
    "vgg19_bn": Published(
        *("VGG19", "vgg19_bn", 224, 139.992, 19.69, "vgg19.onnx", 560025444),
        "f0121e824e0868d379aaf44038712dbf4a63d61973b7cedcb55827d8015a70f2",
    ),
}

_GRAMMAR = re.compile(
    r"(?P<name>[a-z0-9_]+|timm:[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)?)(?:\((?P<options>[a-z0-9=,]*)\))?"
)


@dataclass(frozen=True)
class Architecture:
    """A network by name, how it pools its last feature map, and the stride of that map in input pixels.

    As text `NAME` or `NAME(pool=gem,stride=16)`, where NAME is one of the six or `timm:MODEL`.
    `str` and `parse` are inverse; defaults are not written.
    """

    name: str
    pool: str = "avg"
    stride: int = 32

    def __post_init__(self) -> None:
        if self.name not in NETWORKS and not self.name.startswith("timm:"):
            raise ModelError(
                f"architecture '{self.name}' is unknown; use one of {', '.join(NETWORKS)}, or timm:MODEL"
            )
        if self.pool not in POOLS:
            raise ModelError(f"architecture '{self.name}': pool '{self.pool}' is not one of {', '.join(POOLS)}")
        if self.stride not in STRIDES:
            raise ModelError(f"architecture '{self.name}': stride {self.stride} is not one of 8, 16, 32")

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read an architecture string.

        Raises ModelError for an unknown name, option or value.
        """
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise ModelError(
                f"architecture '{text}' is unknown; write one of {', '.join(NETWORKS)} or timm:MODEL, "
                "with options as in resnet18(pool=gem,stride=16)"
            )
        architecture = cls(match["name"])
        for option in filter(None, (match["options"] or "").split(",")):
            key, _, value = option.partition("=")
            if key == "pool":
                architecture = replace(architecture, pool=value)
            elif key == "stride" and value.isdecimal():
                architecture = replace(architecture, stride=int(value))
            else:
                raise ModelError(f"architecture '{text}': option '{option}' is neither pool=... nor stride=...")
        return architecture

    def __str__(self) -> str:
        options = [f"pool={self.pool}"] if self.pool != "avg" else []
        options += [f"stride={self.stride}"] if self.stride != 32 else []
        return self.name + (f"({','.join(options)})" if options else "")

    @property
    def backbone(self) -> str:
        """Name of the backbone in timm."""
        return NETWORKS[self.name].backbone if self.name in NETWORKS else self.name.removeprefix("timm:")
