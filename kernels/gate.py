"""The gated activation of a feed-forward layer: act(gate) * up in one pass over the product of both.

gate_up `[tokens, 2 * width]`, gate first (fp32, bf16, fp16; any row stride); returns `[tokens, width]`.
`act`: "silu" (Shazeer, GLU variants, 2020; Elfwing et al., 2018), "gelu" exact or "gelu_tanh" (Hendrycks,
Gimpel, 2016). The activation is rounded to the dtype before the product, as two operations would.
Specification: `kernels.reference.gate_multiply`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


@triton.jit
def _gate(
    gate_up: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    row_stride: tl.tensor,
    ACT: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < width
    gate = tl.load(gate_up + row * row_stride + i, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + width + i, mask=inside, other=0.0).to(tl.float32)
    if ACT == 0:
        active = gate / (1.0 + tl.exp(-gate))
    elif ACT == 1:
        active = gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    else:
        inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)
        active = gate * tl.sigmoid(2.0 * inner)
    rounded = active.to(gate_up.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + i, (rounded * up).to(gate_up.dtype.element_ty), mask=inside)


def gate_multiply(gate_up: Tensor, act: str) -> Tensor:
    """New memory."""
    tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    assert gate_up.stride(1) == 1
    out = torch.empty((tokens, width), dtype=gate_up.dtype, device=gate_up.device)
    if tokens:
        grid = (tokens, triton.cdiv(width, BLOCK))
        _gate[grid](gate_up, out, width, gate_up.stride(0), ACT=ACTIVATIONS.index(act), BLOCK=BLOCK)
    return out
