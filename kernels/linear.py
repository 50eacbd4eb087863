"""Linear layers over weights in the order that the device reads fastest.

On CPU there are two. "half": float16 numbers that FBGEMM widens as it reads them, computed and summed in
float32, for float32 layers whose weights are float16 or bfloat16 numbers (as checkpoints have them): half the
memory is read, and a call costs a microsecond and not ten. "blocked": oneDNN's order (as torch's inductor
packs weights) for what is left, bfloat16 layers included. Elsewhere the plain order. All compute
x @ weight.T + bias.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN orders the weight for a number of rows; this one serves 1 to 128 well.
_ROWS = 8
# What float16 may change of a weight, over the largest: below what float32 sums are off by anyway. All of
# float16 and of bfloat16 passes but what is too large, or a millionth of the largest and below.
_LOST = 2.0**-20

_blocked_linear = torch.ops.mkldnn._linear_pointwise.default
_blocked_linear_add = torch.ops.mkldnn._linear_pointwise.binary


@dataclass(frozen=True, slots=True)
class Linear:
    """A weight `[out, in]` (opaque unless `order` is "plain") with an optional bias `[out]`."""

    weight: Tensor
    bias: Tensor | None
    outputs: int
    order: Literal["plain", "blocked", "half"]


def pack(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The layer in the best order for its device, dtype and numbers."""
    weight = weight.contiguous()
    outputs = weight.shape[0]
    if _half is not None and _fits_half(weight):
        return Linear(_half.order(weight), bias, outputs, "half")
    if _fits_blocks(weight):
        return Linear(torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), bias, outputs, "blocked")
    return Linear(weight, bias, outputs, "plain")


def linear(x: Tensor, layer: Linear) -> Tensor:
    """`[rows, in]` to `[rows, out]`."""
    if layer.order == "half":
        assert _half is not None
        out: Tensor = _half.linear(x, layer.weight, layer.bias, layer.outputs)
        return out
    if layer.order == "plain":
        return F.linear(x, layer.weight, layer.bias)
    made: Tensor = _blocked_linear(x, layer.weight, layer.bias, "none", [], "")
    return made


def linear_add(x: Tensor, layer: Linear, residual: Tensor) -> Tensor:
    """`linear(x, layer) + residual`, in one pass over the output where blocked."""
    if layer.order != "blocked":
        return linear(x, layer).add_(residual)
    out: Tensor = _blocked_linear_add(x, residual, layer.weight, layer.bias, "add")
    return out


def _fits_half(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    lost = (weight.half().float() - weight).abs_().max()
    return bool(lost <= _LOST * weight.abs().max())


def _fits_blocks(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


@dataclass(frozen=True, slots=True)
class _Half:
    """FBGEMM's two operators: a weight's own order, and the product."""

    order: Callable[[Tensor], Tensor]
    linear: Callable[[Tensor, Tensor, Tensor | None, int], Tensor]


def _half_operators() -> _Half | None:
    """None where this build of torch, or this processor, has none.

    Torch says once a process that they will go; it says so here, to nobody, and a torch without them gets the
    blocked order.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tried = torch.fbgemm_pack_gemm_matrix_fp16(torch.ones(8, 8))
            torch.fbgemm_linear_fp16_weight_fp32_activation(torch.ones(1, 8), tried, None)
        operators = torch.ops._quantized
        return _Half(
            operators.wrapped_fbgemm_pack_gemm_matrix_fp16.default,
            operators.wrapped_fbgemm_linear_fp16_weight.default,
        )
    except (AttributeError, RuntimeError):
        return None


_half = _half_operators()
