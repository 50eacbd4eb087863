"""Executable specifications in plain torch of the kernels for images and sound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.upload import moved


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, *, silu: bool = True
) -> Tensor:
    """SiLU of the group norm of x `[batch, channels, ...]`, or the norm alone."""
    normed = F.group_norm(x, groups, weight, bias, eps)
    return F.silu(normed) if silu else normed


def modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """layer_norm(x) * (1 + scale) + shift; x `[images, tokens, width]`, scale and shift `[images, width]`."""
    return torch.addcmul(
        shift.unsqueeze(1), F.layer_norm(x, (x.shape[-1],), eps=eps), 1.0 + scale.unsqueeze(1)
    )


def latent_steps(tensors: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Weighted sums of tensors of one shape, fp32; weights fp32 `[sums, tensors]`, on the host. Returns
    `[sums, ...]`."""
    stacked = torch.stack(tuple(tensors)).flatten(1)
    sums = moved(weights, stacked.device) @ stacked
    return sums.view(weights.shape[0], *tensors[0].shape)


def overlap_add(frames: Tensor, hop: int, window: Tensor | None = None) -> Tensor:
    """Frame n of `[batch, frames, length]`, times the window `[length]` if there is one, is added from sample
    n * hop on. Of the sum, fp32, what no frame before or after these would add to: `[batch, (frames - cover +
    1) * hop]` from sample (cover - 1) * hop on, where a sample lies in up to `cover` frames."""
    batch, number, length = frames.shape
    windowed = frames.float() if window is None else frames.float() * window.float()
    cover = -(-length // hop)
    if cover * hop > length:
        windowed = F.pad(windowed, (0, cover * hop - length))
    parts = windowed.view(batch, number, cover, hop)
    whole = number - cover + 1
    if whole <= 0:
        return parts.new_empty(batch, 0)
    out = parts[:, cover - 1 :, 0].clone(memory_format=torch.contiguous_format)
    for late in range(1, cover):
        begin = cover - 1 - late
        out += parts[:, begin : begin + whole, late]
    return out.view(batch, whole * hop)
