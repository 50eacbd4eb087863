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


def overlap_add(frames: Tensor, window: Tensor, hop: int, *, normalise: bool = False) -> Tensor:
    """Frame n of `[batch, frames, length]`, times the window, is added from sample n * hop on; fp32.
    normalise: divided by the sum of the squared windows, where that is above 1e-8."""
    batch, number, length = frames.shape
    out = frames.new_zeros((batch, (number - 1) * hop + length if number else 0), dtype=torch.float32)
    power = torch.zeros_like(out)
    wide = window.float()
    for frame in range(number):
        here = slice(frame * hop, frame * hop + length)
        out[:, here] += frames[:, frame].float() * wide
        power[:, here] += wide * wide
    return out / torch.where(power > 1e-8, power, 1.0) if normalise else out
