"""Depthwise convolutions whose gradients are as fast in bf16 as the rest of a step.

On a CPU, PyTorch's bf16 gradients of a depthwise convolution that has a stride, or a kernel wider than three, take
three to fifty times as long as its float32 ones, so that a bf16 step of an EfficientNet is slower than a float32
one (benchmarks/depthwise.py). Those gradients are computed in float32 here, from the same bf16 numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_Pair = tuple[int, int]


class QuickDepthwise(TorchFunctionMode):
    """Inside this context, depthwise convolutions under a bf16 autocast of the CPU have quick gradients.

    All else, float32 included, is computed as ever. Gradients differ from PyTorch's own by rounding alone.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What `func` gives; PyTorch calls this for every function of its own."""
        called = _convolve if func is functional.conv2d and _in_bf16() else func
        return called(*args, **(kwargs or {}))


def _in_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _convolve(
    input: Tensor,  # noqa: A002  (the names of torch, since any may be given by name)
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d`, with quick gradients where it takes every channel by itself and is described as by a layer."""
    if (
        input.device.type == "cpu"
        and groups == weight.shape[0] == input.shape[1] > 1
        and bias is None
        and all(isinstance(pair, tuple) for pair in (stride, padding, dilation))
        and tuple(dilation) == (1, 1)
    ):
        return _Depthwise.apply(input, weight, stride, padding)
    return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bf16, images (B, C, H, W) and weight (C, 1, k, k)."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: _Pair, padding: _Pair) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.shape = stride, padding
        return functional.conv2d(images, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding = ctx.shape
        wide = max(weight.shape[2:]) > 3
        strided = max(stride) > 1

        def gradient(of: int, quick: bool) -> Tensor | None:
            """Of the images (0) or the weight (1), in float32 where bf16 is not `quick`."""
            if not ctx.needs_input_grad[of]:
                return None
            mask = [of == 0, of == 1, False]
            tensors = [each if quick else each.float() for each in (*gradients, images, weight)]
            found = torch.ops.aten.convolution_backward(
                *tensors, None, stride, padding, (1, 1), False, (0, 0), len(weight), mask
            )
            return found[of].to(images.dtype)

        return gradient(0, not strided), gradient(1, not wide), None, None
