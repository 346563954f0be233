"""Domain randomisation: what real radiographs do to an image that phantoms do not, drawn anew for every batch.

Works on whole batches of torch tensors, images (B, 1, H, W) in [0, 1] and masks alike, from a
`torch.Generator`, so a run repeats exactly. Geometry moves image and mask together; everything else
touches the image only.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.io import decode_jpeg, encode_jpeg


def randomise(
    images: Tensor,
    masks: Tensor,
    generator: torch.Generator,
    size: int | None = None,
    focus: Tensor | None = None,
    turned: float = 0.35,
    worn: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One random view of each image and its mask, (B, 1, H, W) both, values in [0, 1].

    `size` is that of the square views in pixels; by default they are as large as the images. With `focus`, points
    (B, 2) as x and y in [-1, 1] across the image, a view is a close-up: as much as `size` pixels hold at the
    image's own resolution, with that point somewhere in it. `turned` is the share of views whose uprightness is
    drawn, as one of the four quarter turns. `worn` multiplies the probability of changes that wipe out fine
    detail.
    """
    shape = (size, size) if size else tuple(images.shape[2:])
    images, masks = _move(images, masks, generator, shape, focus, turned)
    for probability, change in _CHANGES:
        share = probability * worn if change in _WEARING else probability
        chosen = torch.rand(len(images), generator=generator) < share
        if chosen.any():
            images[chosen] = change(images[chosen], generator)
    return images.clamp_(0, 1), masks


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low


def _move(
    images: Tensor,
    masks: Tensor,
    generator: torch.Generator,
    shape: tuple[int, ...],
    focus: Tensor | None,
    turned: float,
) -> tuple[Tensor, Tensor]:
    """Rotate (any angle, and quarter turns), mirror, scale, stretch and shift."""
    count = len(images)
    draw = torch.rand(count, 9, generator=generator)
    turn = torch.where(draw[:, 0] < turned, (draw[:, 1] * 4).floor() * (math.pi / 2), 0.0)
    angle = turn + torch.randn(count, generator=generator) * math.radians(12)
    scale = torch.exp((draw[:, 2] - 0.5) * 0.5)
    stretch = torch.exp((draw[:, 3] - 0.5) * 0.3)
    mirror = torch.where(draw[:, 4] < 0.5, -1.0, 1.0)
    part = 1.0 if focus is None else shape[0] / images.shape[2]
    cosine, sine = torch.cos(angle) * scale * part, torch.sin(angle) * scale * part
    linear = torch.stack(
        [cosine * mirror * stretch, -sine / stretch, sine * mirror * stretch, cosine / stretch], 1
    ).view(count, 2, 2)
    shift = draw[:, 5:7] - 0.5
    if focus is None:
        shift = shift * 0.3
    else:  # the point may lie anywhere in the middle 70 % of the view, which stays on the image
        shift = focus - (linear @ (shift * 1.4)[:, :, None])[:, :, 0]
        shift = shift.clamp(part - 1.15, 1.15 - part)
    affine = torch.cat([linear, shift[:, :, None]], 2)
    grid = functional.affine_grid(affine, [count, 1, *shape], align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    return moved, functional.grid_sample(masks, grid, align_corners=False)


def _tone(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, contrast and brightness: the display of another maker."""
    count = len(images)
    gamma = torch.exp(torch.randn(count, 1, 1, 1, generator=generator) * 0.3)
    images = images.clamp(0, 1) ** gamma
    contrast = _uniform(count, 0.6, 1.5, generator)
    middle = images.mean((1, 2, 3), keepdim=True)
    return (images - middle) * contrast + middle + _uniform(count, -0.15, 0.15, generator)


def _shade(images: Tensor, generator: torch.Generator) -> Tensor:
    """A linear ramp over the field: heel effect and uneven film."""
    count, _, rows, columns = images.shape
    across = torch.linspace(-1, 1, columns)[None, None, None, :]
    down = torch.linspace(-1, 1, rows)[None, None, :, None]
    ramp = across * _uniform(count, -0.15, 0.15, generator) + down * _uniform(count, -0.15, 0.15, generator)
    return images * (1 + ramp)


def _blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian of 0.4 to 1.4 pixels: motion, large focal spots, poor scans."""
    return _gaussian(images, _uniform(len(images), 0.4, 1.4, generator))


def _sharpen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Unsharp masking: the edge enhancement of digital systems."""
    count = len(images)
    smooth = _gaussian(images, _uniform(count, 0.8, 3.0, generator))
    return images + (images - smooth) * _uniform(count, 0.3, 2.0, generator)


def _gaussian(images: Tensor, sigma: Tensor) -> Tensor:
    """Every image smoothed by a Gaussian of its own, sigma (B, 1, 1, 1) in pixels, cut off at 6 pixels."""
    count = len(images)
    kernel = torch.exp(-(torch.arange(-6.0, 7.0) ** 2) / (2 * sigma.view(count, 1) ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    batch = functional.pad(images.transpose(0, 1), (6, 6, 6, 6), mode="replicate")
    batch = functional.conv2d(batch, kernel.view(count, 1, 1, 13), groups=count)
    return functional.conv2d(batch, kernel.view(count, 1, 13, 1), groups=count).transpose(0, 1)


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Quantum mottle, finer or coarser than the detector's pixels."""
    sigma = _uniform(len(images), 0.005, 0.04, generator)
    return images + torch.randn(images.shape, generator=generator) * sigma


def _coarsen(images: Tensor, generator: torch.Generator) -> Tensor:
    """Fewer pixels than we are given: thumbnails, screenshots, old archives."""
    rows, columns = images.shape[2:]
    factor = float(torch.rand(1, generator=generator)) * 0.45 + 0.5
    small = functional.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=(rows, columns), mode="bilinear")


def _jpeg(images: Tensor, generator: torch.Generator) -> Tensor:
    """JPEG at quality 30 to 90."""
    qualities = torch.randint(30, 91, (len(images),), generator=generator).tolist()
    pixels = (images.clamp(0, 1) * 255).to(torch.uint8)
    coded = [decode_jpeg(encode_jpeg(image, quality)) for image, quality in zip(pixels, qualities, strict=True)]
    return torch.stack(coded).float() / 255


def _burn_in(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blocks of bright or dark strokes near an edge: burned-in text and stickers."""
    rows, columns = images.shape[2:]
    images = images.clone()
    for image in images:
        draw = torch.rand(6, generator=generator)
        height, width = int(rows * (0.02 + 0.05 * draw[0])), int(columns * (0.05 + 0.3 * draw[1]))
        top = int((rows - height) * (draw[2] * 0.15 if draw[3] < 0.5 else 1 - draw[2] * 0.15))
        left = int((columns - width) * draw[4])
        strokes = (torch.rand(1, height, width, generator=generator) < 0.5).float()
        image[:, top : top + height, left : left + width] = strokes if draw[5] < 0.8 else 1 - strokes
    return images


def _frame(images: Tensor, generator: torch.Generator) -> Tensor:
    """A black, gray or white margin: collimation, film edges, screenshots."""
    rows, columns = images.shape[2:]
    images = images.clone()
    for image in images:
        draw = torch.rand(5, generator=generator)
        level = (0.0, 0.0, 1.0, float(draw[4]))[int(draw[4] * 4) % 4]
        top, bottom = int(draw[0] * 0.12 * rows), int(draw[1] * 0.12 * rows)
        left, right = int(draw[2] * 0.12 * columns), int(draw[3] * 0.12 * columns)
        image[:, :top], image[:, rows - bottom :] = level, level
        image[:, :, :left], image[:, :, columns - right :] = level, level
    return images


def _erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """A flat patch, so that no single place decides (Zhong et al., arXiv:1708.04896)."""
    rows, columns = images.shape[2:]
    images = images.clone()
    for image in images:
        draw = torch.rand(5, generator=generator)
        height, width = int(rows * (0.05 + 0.12 * draw[0])), int(columns * (0.05 + 0.12 * draw[1]))
        top, left = int((rows - height) * draw[2]), int((columns - width) * draw[3])
        image[:, top : top + height, left : left + width] = draw[4]
    return images


def _invert(images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """The other polarity: files that do not say theirs."""
    return 1 - images.clamp(0, 1)


# Probability and change, in the order in which a department would inflict them.
_CHANGES: tuple[tuple[float, Callable[[Tensor, torch.Generator], Tensor]], ...] = (
    (0.20, _shade),
    (0.20, _blur),
    (0.25, _sharpen),
    (0.25, _noise),
    (0.75, _tone),
    (0.12, _burn_in),
    (0.15, _frame),
    (0.10, _erase),
    (0.12, _coarsen),
    (0.20, _invert),
    (0.20, _jpeg),
)
_WEARING = (_blur, _noise, _burn_in, _erase, _coarsen, _jpeg)
