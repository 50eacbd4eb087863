"""RMSNorm with the residual sum before it, in one pass: the sum is read, written and normalised once.

x and residual `[tokens, width]` of one dtype (fp32, bf16, fp16), any row stride, weight `[width]`. The sum is
rounded to the dtype before it is normalised, as two separate operations would. Source of the norm: Zhang,
Sennrich (2019). Specification: `kernels.reference.add_rms_norm`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import power_of_2


@triton.jit
def _norm(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    width: tl.tensor,
    x_row: tl.tensor,
    residual_row: tl.tensor,
    WIDE: tl.constexpr,
    ADD: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, WIDE)
    inside = i < width
    value = tl.load(x + row * x_row + i, mask=inside, other=0.0)
    if ADD:
        other = tl.load(residual + row * residual_row + i, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(x.dtype.element_ty)
        tl.store(total + row * width + i, value, mask=inside)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + tl.load(eps))
    scaled = (wide * scale).to(x.dtype.element_ty)
    factor = tl.load(weight + i, mask=inside, other=0.0)
    result = scaled.to(tl.float32) * factor.to(tl.float32)
    tl.store(out + row * width + i, result.to(x.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """`kernels.reference.rms_norm` of `[tokens, width]`."""
    return _launch(x, None, weight, eps)[1]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """(x + residual, its norm), both new."""
    return _launch(x, residual, weight, eps)


def _launch(x: Tensor, residual: Tensor | None, weight: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    tokens, width = x.shape
    assert x.stride(1) == 1 and (residual is None or residual.stride(1) == 1)
    out = torch.empty((tokens, width), dtype=x.dtype, device=x.device)
    total = torch.empty_like(out) if residual is not None else out
    if tokens:
        wide = power_of_2(width)
        _norm[(tokens,)](
            x,
            x if residual is None else residual,
            weight,
            total,
            out,
            eps,
            width,
            x.stride(0),
            0 if residual is None else residual.stride(0),
            WIDE=wide,
            ADD=residual is not None,
            num_warps=4 if wide <= 2048 else 8,
        )
    return total, out
