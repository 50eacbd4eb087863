"""One denoising step without a model evaluation, in one pass over the latents: forecast of the model's
outputs, guidance, and the sampler's update, each row at its own timestep.

All three are linear with a few numbers a row, which the host knows from the schedule: the forecast weighs
the outputs kept so far (Taylor or Adams forms: Liu et al., TaylorSeer, 2025); guidance mixes two of them
(Ho, Salimans, 2022); the update of DDIM, Euler and DPM-Solver++(2M) mixes latents, output and the previous
estimate of the clean image.

Layout and specification: `kernels.reference_media.latent_step`; all fp32, contiguous, but `kept` in any of
fp32, bf16, fp16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _step(
    latents: tl.tensor,
    previous: tl.tensor,
    kept: tl.tensor,
    weights: tl.tensor,
    mix: tl.tensor,
    new_latents: tl.tensor,
    new_previous: tl.tensor,
    output: tl.tensor,
    size: tl.tensor,
    ORDER: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    held = i < size
    x = tl.load(latents + row * size + i, mask=held, other=0.0)
    before = tl.load(previous + row * size + i, mask=held, other=0.0)
    negative = tl.zeros([BLOCK], tl.float32)
    positive = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(ORDER):
        weight = tl.load(weights + row * ORDER + k) + tl.zeros([BLOCK], tl.float32)
        used = held & (weight != 0.0)
        place = kept + ((row * ORDER + k) * 2) * size + i
        negative += weight * tl.load(place, mask=used, other=0.0).to(tl.float32)
        positive += weight * tl.load(place + size, mask=used, other=0.0).to(tl.float32)
    mix += row * 6
    guided = negative + tl.load(mix) * (positive - negative)
    update = tl.load(mix + 1) * x + tl.load(mix + 2) * guided + tl.load(mix + 3) * before
    clean = tl.load(mix + 4) * x + tl.load(mix + 5) * guided
    tl.store(output + row * size + i, guided, mask=held)
    tl.store(new_latents + row * size + i, update, mask=held)
    tl.store(new_previous + row * size + i, clean, mask=held)


def latent_step(
    latents: Tensor, previous: Tensor, kept: Tensor, weights: Tensor, mix: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(latents, estimate of the clean image, guided output) after the step, all new."""
    rows, size = latents.shape
    made = torch.empty((3, rows, size), dtype=torch.float32, device=latents.device)
    if rows and size:
        _step[(rows, triton.cdiv(size, BLOCK))](
            latents,
            previous,
            kept,
            weights,
            mix,
            made[0],
            made[1],
            made[2],
            size,
            ORDER=weights.shape[1],
            BLOCK=BLOCK,
        )
    return made[0], made[1], made[2]
