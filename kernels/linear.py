"""Linear layers over weights in the order that the device reads fastest.

On CPU there are two. "half" (`kernels.half`): float16 numbers that are widened as they are read, for float32
layers whose weights are float16 or bfloat16 numbers (as checkpoints have them): half the memory is read, and
a call costs a microsecond and not ten. "blocked": oneDNN's order (as torch's inductor packs weights) for what
is left, bfloat16 layers included. Elsewhere the plain order. All compute x @ weight.T + bias.

Weights may be rounded too (`pack_rounded`). On a CPU: "int8", a scale for each output, and "int4", one for 32
inputs of it; the products then take x in bfloat16. On a GPU: "grouped", a scale for 128 inputs of an output
(or 64, or 32), see `kernels.quantised`; few rows are multiplied by its kernel where that pays, for others the
weight is widened first, which takes less memory than weights that were never rounded, and more time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.half import Half, fits, half_linear, pack_half
from kernels.quantised import MOST_ROWS, Quantised, quantise, quantised_linear
from kernels.timings import chosen

# oneDNN orders the weight for a number of rows; this one serves 1 to 128 well.
_ROWS = 8

# Inputs that share a scale at 4 bits, and the outputs that torch takes at a time.
GROUP = 32
_OUTPUTS = 16
# Inputs that share a scale on a GPU, the first that divides them.
_GROUPS = (128, 64, 32)
# From so many rows on, widening an int8 weight and multiplying as usual is faster.
_WIDENED = 32

_blocked_linear = torch.ops.mkldnn._linear_pointwise.default
_blocked_linear_add = torch.ops.mkldnn._linear_pointwise.binary


@dataclass(frozen=True, slots=True)
class Linear:
    """A weight `[out, in]` (opaque unless `order` is "plain" or "int8") with an optional bias `[out]`.
    scales: of "int8", bfloat16 `[out]`; of "int4", torch's own, `[in / GROUP, out, 2]`. grouped: where
    `order` says so; `weight` then is its numbers. half: likewise; `weight` then is empty."""

    weight: Tensor
    bias: Tensor | None
    outputs: int
    order: Literal["plain", "blocked", "half", "int8", "int4", "grouped"]
    scales: Tensor | None = None
    grouped: Quantised | None = None
    half: Half | None = None


def pack(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The layer in the best order for its device, dtype and numbers."""
    weight = weight.contiguous()
    outputs = weight.shape[0]
    if fits(weight):
        return Linear(weight.new_empty(0), bias, outputs, "half", half=pack_half(weight, bias))
    if _fits_blocks(weight):
        return Linear(torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), bias, outputs, "blocked")
    return Linear(weight, bias, outputs, "plain")


def pack_rounded(weight: Tensor, bits: int, bias: Tensor | None = None) -> Linear:
    """The layer with its weight rounded to 4 or 8 bits, as its device computes it best. Raises: ValueError
    where it cannot."""
    outputs, inputs = weight.shape
    if weight.device.type != "cpu":
        return pack_grouped(weight, bits, bias)
    if bits == 8:
        scales = (weight.float().abs().amax(1) / 127).clamp_min(1e-12).bfloat16()
        whole = (weight.float() / scales.float().unsqueeze(1)).round().clamp_(-127, 127)
        return Linear(whole.to(torch.int8), bias, outputs, "int8", scales)
    if inputs % GROUP or outputs % _OUTPUTS:
        wanted = f"multiples of {GROUP} inputs and {_OUTPUTS} outputs"
        raise ValueError(f"int4 needs {wanted}, a layer has {inputs} and {outputs}")
    grouped = weight.float().view(outputs, -1, GROUP)
    scales = (grouped.abs().amax(-1) / 7).clamp_min(1e-12).bfloat16()
    whole = (grouped / scales.float().unsqueeze(-1)).round().clamp_(-7, 7) + 8
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole.view(outputs, inputs).int(), 1)
    both = torch.stack((scales.t(), torch.zeros_like(scales).t()), -1).contiguous()
    return Linear(packed, bias, outputs, "int4", both)


def pack_grouped(weight: Tensor, bits: int, bias: Tensor | None = None) -> Linear:
    """`pack_rounded` for a GPU, computed on any device. Raises: ValueError where no group fits."""
    inputs = weight.shape[1]
    group = next((group for group in _GROUPS if inputs % group == 0), None)
    if group is None:
        raise ValueError(f"int{bits} needs multiples of {_GROUPS[-1]} inputs, a layer has {inputs}")
    rounded = quantise(weight, bits, group)
    return Linear(rounded.numbers, bias, weight.shape[0], "grouped", grouped=rounded)


def linear(x: Tensor, layer: Linear) -> Tensor:
    """`[rows, in]` to `[rows, out]`."""
    if layer.half is not None:
        return half_linear(x, layer.half)
    if layer.scales is not None:
        return _rounded(x, layer, layer.scales)
    if layer.grouped is not None:
        out = _grouped(x, layer.grouped)
        return out if layer.bias is None else out.add_(layer.bias)
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


def _rounded(x: Tensor, layer: Linear, scales: Tensor) -> Tensor:
    narrow = x.bfloat16()
    if layer.order == "int4":
        made = torch.ops.aten._weight_int4pack_mm_for_cpu(narrow, layer.weight, GROUP, scales)
    elif x.shape[0] < _WIDENED:
        made = torch._weight_int8pack_mm(narrow, layer.weight, scales)
    else:
        made = F.linear(narrow, layer.weight.to(torch.bfloat16)).mul_(scales)
    out: Tensor = made.to(x.dtype)
    return out if layer.bias is None else out.add_(layer.bias)


def _grouped(x: Tensor, weight: Quantised) -> Tensor:
    """`quantised_linear`, by its kernel where that pays."""
    if x.shape[0] <= MOST_ROWS and chosen(f"quantised_linear_{weight.bits}", x, x.shape[0]):
        from kernels import quantised_matvec

        return quantised_matvec.quantised_linear(x, weight)
    return quantised_linear(x, weight)


def _fits_blocks(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
