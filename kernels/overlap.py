"""Windowed overlap-add: frames of sound to a signal, each sample gathered once from the frames that cover it,
so that there are no atomic additions and the sum has one order (Griffin, Lim, 1984; Crochiere, 1980).

frames `[batch, frames, length]` (fp32, bf16, fp16), window `[length]`; returns fp32
`[batch, (frames - 1) * hop + length]`. Specification: `kernels.reference_media.overlap_add`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _overlap_add(
    frames: tl.tensor,
    window: tl.tensor,
    out: tl.tensor,
    number: tl.tensor,
    length: tl.tensor,
    hop: tl.tensor,
    samples: tl.tensor,
    COVER: tl.constexpr,
    NORMALISE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    power = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(COVER):
        frame = t // hop - (COVER - 1 - k)
        offset = t - frame * hop
        held = (frame >= 0) & (frame < number) & (offset < length) & (t < samples)
        weight = tl.load(window + offset, mask=held, other=0.0).to(tl.float32)
        value = tl.load(frames + (row * number + frame) * length + offset, mask=held, other=0.0)
        total += weight * value.to(tl.float32)
        power += weight * weight
    if NORMALISE:
        total = total / tl.where(power > 1e-8, power, 1.0)
    tl.store(out + row * samples + t, total, mask=t < samples)


def overlap_add(frames: Tensor, window: Tensor, hop: int, *, normalise: bool = False) -> Tensor:
    """normalise: divide by the sum of the squared windows, where that is above 1e-8."""
    frames = frames.contiguous()
    batch, number, length = frames.shape
    samples = (number - 1) * hop + length if number else 0
    out = torch.empty((batch, samples), dtype=torch.float32, device=frames.device)
    if out.numel():
        _overlap_add[(batch, triton.cdiv(samples, BLOCK))](
            frames,
            window,
            out,
            number,
            length,
            hop,
            samples,
            COVER=-(-length // hop),
            NORMALISE=normalise,
            BLOCK=BLOCK,
        )
    return out
