"""Float32 products with weights that are read as float16: FBGEMM widens them as it reads, and computes and
sums in float32. x `[rows, in]`, contiguous or not; a weight `[out, in]`, which `fits`.

Torch has two operators for it. One works on the calling thread alone and costs a microsecond a call; the
other divides the outputs between all of the thread's `torch.get_num_threads()` and costs eight. Either sums
an output in the same order, for any number of rows, so that which of them runs changes no bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# What float16 may change of a weight, over the largest: below what float32 sums are off by anyway. All of
# float16 and of bfloat16 passes but what is too large, or a millionth of the largest and below.
_LOST = 2.0**-20
# Products of so many multiplications, a third of a millisecond on one thread, are divided: for smaller ones
# it is not worth waking the others, which then keep their processors busy for a while.
DIVIDED = 1 << 25
# Reading a weight takes as long as computing so many rows with it.
_READ = 4


@dataclass(frozen=True, slots=True)
class Half:
    """A packed weight with its bias `[out]`. alone, divided: for either operator; alone is None where every
    product is large enough for the other, so that large weights are kept once."""

    alone: Tensor | None
    divided: torch.ScriptObject
    bias: Tensor | None
    outputs: int
    size: int


def fits(weight: Tensor) -> bool:
    """Whether this torch and processor have the operators, and float16 holds these float32 numbers."""
    if _operators is None or weight.device.type != "cpu" or weight.dtype != torch.float32:
        return False
    lost = (weight.half().float() - weight).abs_().max()
    return bool(lost <= _LOST * weight.abs().max())


def pack_half(weight: Tensor, bias: Tensor | None) -> Half:
    """A weight that `fits`, contiguous."""
    assert _operators is not None
    size = weight.numel()
    alone = _operators.pack(weight) if _READ * size < DIVIDED else None
    divided = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    return Half(alone, divided, bias, weight.shape[0], size)


def half_linear(x: Tensor, weight: Half) -> Tensor:
    """x @ weight.T + bias, `[rows, out]`."""
    assert _operators is not None
    if weight.alone is None or (
        weight.size * max(_READ, x.shape[0]) >= DIVIDED and torch.get_num_threads() > 1
    ):
        return _operators.divided(x, weight.divided)
    return _operators.alone(x, weight.alone, weight.bias, weight.outputs)


@dataclass(frozen=True, slots=True)
class _Operators:
    """The order of the one that works alone, and both products."""

    pack: Callable[[Tensor], Tensor]
    alone: Callable[[Tensor, Tensor, Tensor | None, int], Tensor]
    divided: Callable[[Tensor, torch.ScriptObject], Tensor]


def _found() -> _Operators | None:
    """None where this build of torch, or this processor, has none.

    Torch says once a process that they will go; it says so here, to nobody, and a torch without them gets the
    blocked order.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            tried = torch.fbgemm_pack_gemm_matrix_fp16(torch.ones(8, 8))
            torch.fbgemm_linear_fp16_weight_fp32_activation(torch.ones(1, 8), tried, None)
            divided = torch.ops.quantized.linear_dynamic_fp16.default
            divided(torch.ones(1, 8), torch.ops.quantized.linear_prepack_fp16(torch.ones(8, 8), None))
        alone = torch.ops._quantized
        return _Operators(
            alone.wrapped_fbgemm_pack_gemm_matrix_fp16.default,
            alone.wrapped_fbgemm_linear_fp16_weight.default,
            divided,
        )
    except (AttributeError, RuntimeError):
        return None


_operators = _found()
