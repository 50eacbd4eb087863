"""Windowed overlap-add: frames of sound to a signal, each sample gathered once from the frames that cover it,
so that there are no atomic additions and the sum has one order (Griffin, Lim, 1984; Crochiere, 1980).

frames `[batch, frames, length]` (fp32, bf16, fp16), window `[length]`, or None for frames that carry theirs;
returns fp32. Specification: `kernels.reference_media.overlap_add`.
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
    BLOCK: tl.constexpr,
) -> None:
    """window None: the frames carry it. Sample t of the result is sample t + (COVER - 1) * hop of the sum."""
    row = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(COVER):
        frame = t // hop + COVER - 1 - k
        offset = t % hop + k * hop
        held = (offset < length) & (t < samples)
        place = frames + (row * number + frame) * length + offset
        value = tl.load(place, mask=held, other=0.0).to(tl.float32)
        if window is not None:
            value *= tl.load(window + offset, mask=held, other=0.0).to(tl.float32)
        total += value
    tl.store(out + row * samples + t, total, mask=t < samples)


def overlap_add(frames: Tensor, hop: int, window: Tensor | None = None) -> Tensor:
    """`kernels.reference_media.overlap_add`."""
    frames = frames.contiguous()
    batch, number, length = frames.shape
    cover = -(-length // hop)
    samples = max(0, number - cover + 1) * hop
    out = torch.empty((batch, samples), dtype=torch.float32, device=frames.device)
    if out.numel():
        _overlap_add[(batch, triton.cdiv(samples, BLOCK))](
            frames, window, out, number, length, hop, samples, COVER=cover, BLOCK=BLOCK
        )
    return out
