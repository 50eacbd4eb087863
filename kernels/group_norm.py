"""Group normalisation followed by SiLU: the U-Net's pair of operations before each convolution, reading the
image twice and writing it once.

x `[batch, channels, ...]` contiguous (fp32, bf16, fp16); weight, bias `[channels]`. Means and squared
deviations of parts of a group are merged exactly as Chan et al. (1983) do, in fp32. Source: Wu, He (2018).
Specification: `kernels.reference_media.group_norm_silu`.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import power_of_2, processors

BLOCK = 1024


@triton.jit
def _moments(x: tl.tensor, parts: tl.tensor, size: tl.tensor, part: tl.tensor, BLOCK: tl.constexpr) -> None:
    """(count, mean, squared deviations) of one part of one group."""
    group, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    count = tl.full([], 0.0, tl.float32)
    mean = tl.full([], 0.0, tl.float32)
    deviation = tl.full([], 0.0, tl.float32)
    end = tl.minimum(number * part + part, size)
    for at in range(number * part, end, BLOCK):
        i = at + tl.arange(0, BLOCK)
        held = i < end
        value = tl.load(x + group * size + i, mask=held, other=0.0).to(tl.float32)
        here = tl.minimum(end - at, BLOCK).to(tl.float32)
        local = tl.sum(value, 0) / here
        apart = tl.where(held, value - local, 0.0)
        step = local - mean
        total = count + here
        deviation += tl.sum(apart * apart, 0) + step * step * count * here / total
        mean += step * here / total
        count = total
    place = parts + (group * tl.num_programs(1) + number) * 3
    tl.store(place, count)
    tl.store(place + 1, mean)
    tl.store(place + 2, deviation)


@triton.jit
def _apply(
    x: tl.tensor,
    parts: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    number: tl.tensor,
    channels: tl.tensor,
    groups: tl.tensor,
    plane: tl.tensor,
    PARTS: tl.constexpr,
    SILU: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    image = tl.program_id(0) // channels
    channel = tl.program_id(0) % channels
    group = image * groups + channel // (channels // groups)
    p = tl.arange(0, PARTS)
    place = parts + (group * number + p) * 3
    counts = tl.load(place, mask=p < number, other=0.0)
    means = tl.load(place + 1, mask=p < number, other=0.0)
    deviations = tl.load(place + 2, mask=p < number, other=0.0)
    total = tl.sum(counts, 0)
    mean = tl.sum(counts * means, 0) / total
    apart = means - mean
    variance = (tl.sum(deviations, 0) + tl.sum(counts * apart * apart, 0)) / total
    scale = tl.rsqrt(variance + eps) * tl.load(weight + channel).to(tl.float32)
    shift = tl.load(bias + channel).to(tl.float32) - mean * scale
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start = tl.program_id(0).to(tl.int64) * plane
    value = tl.load(x + start + i, mask=i < plane, other=0.0).to(tl.float32) * scale + shift
    if SILU:
        value = value / (1.0 + tl.exp(-value))
    tl.store(out + start + i, value.to(x.dtype.element_ty), mask=i < plane)


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool = True
) -> Tensor:
    """New memory, of the shape of x."""
    assert x.is_contiguous()
    images, channels = x.shape[:2]
    plane = math.prod(x.shape[2:])
    size = channels // groups * plane
    out = torch.empty_like(x)
    if not x.numel():
        return out
    number = max(1, min(-(-size // BLOCK), 4 * processors(x.device) // (images * groups), 64))
    part = -(-size // number)
    number = -(-size // part)
    parts = torch.empty((images * groups, number, 3), dtype=torch.float32, device=x.device)
    _moments[(images * groups, number)](x, parts, size, part, BLOCK=BLOCK)
    _apply[(images * channels, triton.cdiv(plane, BLOCK))](
        x,
        parts,
        weight,
        bias,
        out,
        eps,
        number,
        channels,
        groups,
        plane,
        PARTS=power_of_2(number),
        SILU=silu,
        BLOCK=BLOCK,
    )
    return out
