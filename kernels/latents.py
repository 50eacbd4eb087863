"""Any number of denoising steps, in one pass over one image's latents: forecasts of the network's output and
the sampler's updates, each at its own timestep.

All of them are weighted sums of the same few tensors, and the host knows the weights from the schedule: the
forecast weighs the outputs that are remembered (Liu et al., TaylorSeer, 2025), the update of DDIM, Euler and
DPM-Solver++(2M) the latents, an output and the estimate of the clean image before. So sums of sums are one
sum, and `pipelines.image.denoise` asks for what is left of a run of steps.

tensors: up to 6, fp32, contiguous, of one shape; weights fp32 `[sums, tensors]`, on the host. Specification:
`kernels.reference_media.latent_steps`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.upload import moved

BLOCK = 1024
MOST = 6


@triton.jit
def _latent_steps(
    first: tl.tensor,
    second: tl.tensor,
    third: tl.tensor,
    fourth: tl.tensor,
    fifth: tl.tensor,
    sixth: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    size: tl.tensor,
    TENSORS: tl.constexpr,
    SUMS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    held = i < size
    for sum in tl.static_range(SUMS):
        weight = weights + sum * TENSORS
        total = tl.load(weight) * tl.load(first + i, mask=held, other=0.0)
        if TENSORS > 1:
            total += tl.load(weight + 1) * tl.load(second + i, mask=held, other=0.0)
        if TENSORS > 2:
            total += tl.load(weight + 2) * tl.load(third + i, mask=held, other=0.0)
        if TENSORS > 3:
            total += tl.load(weight + 3) * tl.load(fourth + i, mask=held, other=0.0)
        if TENSORS > 4:
            total += tl.load(weight + 4) * tl.load(fifth + i, mask=held, other=0.0)
        if TENSORS > 5:
            total += tl.load(weight + 5) * tl.load(sixth + i, mask=held, other=0.0)
        tl.store(out + sum * size + i, total, mask=held)


def latent_steps(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """`[sums, ...]`, new."""
    count, like = len(tensors), tensors[0]
    assert 0 < count <= MOST and all(each.is_contiguous() for each in tensors)
    out = torch.empty((weights.shape[0], *like.shape), dtype=torch.float32, device=like.device)
    if out.numel():
        given = [*tensors, *[like] * (MOST - count)]
        _latent_steps[(triton.cdiv(like.numel(), BLOCK),)](
            *given,
            moved(weights, like.device),
            out,
            like.numel(),
            TENSORS=count,
            SUMS=weights.shape[0],
            BLOCK=BLOCK,
        )
    return out
