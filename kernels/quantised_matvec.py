"""Weight-only quantised layers for few rows: what a decode step reads is a half (int8) or a quarter (int4)
of the bfloat16 weight, and reading it is all the time it takes.

Layout: `kernels.quantised`. Sources: absolute-maximum quantisation in groups (Dettmers et al., LLM.int8(),
2022; Frantar et al., GPTQ kernels, 2022). The weight is the left side of the product, so that 16 outputs by
`group` inputs fill a tensor core whatever the number of rows; scales multiply the sum of their group.
Specification: `kernels.quantised.quantised_linear`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import DOT_SIDE, dot, power_of_2
from kernels.quantised import MOST_ROWS, Quantised

OUTPUTS = 32


@triton.jit
def _quantised(
    x: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    outputs: tl.tensor,
    inputs: tl.tensor,
    x_row: tl.tensor,
    GROUP: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
) -> None:
    o = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    r = tl.arange(0, ROWS)
    groups = inputs // GROUP
    total = tl.zeros([OUTPUTS, ROWS], tl.float32)
    line = o.to(tl.int64)[:, None]
    live, held = (r < rows)[None, :], (o < outputs)[:, None]
    for group in range(groups):
        scale = tl.load(scales + line * groups + group, mask=held, other=0.0).to(tl.float32)
        if BITS == 8:
            i = group * GROUP + tl.arange(0, GROUP)
            numbers = tl.load(weight + line * inputs + i[None, :], mask=held, other=0)
            values = tl.load(x + r[None, :] * x_row + i[:, None], mask=live, other=0.0)
            part = dot(numbers.to(tl.float32).to(x.dtype.element_ty), values)
        else:
            i = tl.arange(0, GROUP // 2)
            pairs = tl.load(
                weight + line * (inputs // 2) + group * (GROUP // 2) + i[None, :], mask=held, other=0
            )
            low = ((pairs & 15).to(tl.float32) - 8.0).to(x.dtype.element_ty)
            high = ((pairs >> 4).to(tl.float32) - 8.0).to(x.dtype.element_ty)
            first = group * GROUP + i[:, None]
            lows = tl.load(x + r[None, :] * x_row + first, mask=live, other=0.0)
            highs = tl.load(x + r[None, :] * x_row + first + GROUP // 2, mask=live, other=0.0)
            part = dot(low, lows) + dot(high, highs)
        total += part * scale
    tl.store(out + r[None, :] * outputs + o[:, None], total.to(out.dtype.element_ty), mask=held & live)


def quantised_linear(x: Tensor, weight: Quantised) -> Tensor:
    """`[rows, in]`, at most 16 rows of any row stride, to `[rows, out]` in the dtype of x."""
    rows, inputs = x.shape
    assert rows <= MOST_ROWS and x.stride(1) == 1
    outputs = weight.scales.shape[0]
    out = x.new_empty(rows, outputs)
    if rows:
        _quantised[(triton.cdiv(outputs, OUTPUTS),)](
            x,
            weight.numbers,
            weight.scales,
            out,
            rows,
            outputs,
            inputs,
            x.stride(0),
            GROUP=weight.group,
            BITS=weight.bits,
            ROWS=power_of_2(rows, DOT_SIDE),
            OUTPUTS=OUTPUTS,
        )
    return out
