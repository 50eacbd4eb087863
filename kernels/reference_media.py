"""Executable specifications in plain torch of the kernels for images and sound."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def latent_step(
    latents: Tensor, previous: Tensor, kept: Tensor, weights: Tensor, mix: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """latents, previous (estimate of the clean image at the step before) fp32 `[rows, size]`; kept outputs
    `[rows, order, 2, size]`, negative prompt first; weights fp32 `[rows, order]` of the forecast, where an
    output of weight 0 is not read; mix fp32 `[rows, 6]`: guidance g, then a, b, c, d, e.

        output  = negative + g * (positive - negative), of the forecast ones
        latents = a * latents + b * output + c * previous
        clean   = d * latents (before the step) + e * output

    Returns (latents, clean, output).
    """
    used = weights.view(*weights.shape, 1, 1)
    forecast = (torch.where(used != 0, kept.float(), 0.0) * used).sum(1)
    g, a, b, c, d, e = mix.unsqueeze(-1).unbind(1)
    negative, positive = forecast.unbind(1)
    output = negative + g * (positive - negative)
    return a * latents + b * output + c * previous, d * latents + e * output, output


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
