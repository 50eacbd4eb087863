"""Adaptive layer norm of diffusion transformers: a layer norm without weights, then one scale and one shift
an image, in one pass (Peebles, Xie, DiT, 2023).

x `[images, tokens, width]` (fp32, bf16, fp16; contiguous last dimension), scale and shift `[images,
width]`, any row stride (they are chunks of one product). Computed in fp32, rounded once. Specification:
`kernels.reference_media.modulate`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import power_of_2


@triton.jit
def _modulate(
    x: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    x_image: tl.tensor,
    x_token: tl.tensor,
    scale_row: tl.tensor,
    shift_row: tl.tensor,
    WIDE: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    image, token = row // tokens, row % tokens
    i = tl.arange(0, WIDE)
    held = i < width
    value = tl.load(x + image * x_image + token * x_token + i, mask=held, other=0.0).to(tl.float32)
    apart = tl.where(held, value - tl.sum(value, 0) / width, 0.0)
    normed = apart * tl.rsqrt(tl.sum(apart * apart, 0) / width + eps)
    factor = 1.0 + tl.load(scale + image * scale_row + i, mask=held, other=0.0).to(tl.float32)
    addend = tl.load(shift + image * shift_row + i, mask=held, other=0.0).to(tl.float32)
    tl.store(out + row * width + i, (normed * factor + addend).to(x.dtype.element_ty), mask=held)


def modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """New memory, contiguous."""
    images, tokens, width = x.shape
    assert x.stride(2) == 1 and scale.stride(1) == 1 and shift.stride(1) == 1
    out = torch.empty((images, tokens, width), dtype=x.dtype, device=x.device)
    if out.numel():
        wide = power_of_2(width)
        _modulate[(images * tokens,)](
            x,
            scale,
            shift,
            out,
            eps,
            tokens,
            width,
            x.stride(0),
            x.stride(1),
            scale.stride(0),
            shift.stride(0),
            WIDE=wide,
            num_warps=4 if wide <= 2048 else 8,
        )
    return out
