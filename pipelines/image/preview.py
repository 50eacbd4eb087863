"""Previews: a linear map from latents to RGB, fitted at load to what the VAE decodes.

The predicted clean image x0 is mapped, not x_t: it looks like the picture from the first steps on. One
pixel a latent position; the encoder enlarges it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as nnf

from pipelines.contract import ByteArray
from pipelines.image.vae import Vae

_SIDE = 8
_SAMPLES = 6
_RIDGE = 1e-2


@dataclass(frozen=True, slots=True)
class PreviewMap:
    """weight (channels + 1, 3), the last row the bias: latents of about unit deviation to RGB in [-1, 1]."""

    weight: torch.Tensor

    def picture(self, latents: torch.Tensor) -> ByteArray:
        """latents (1, channels, height, width) to uint8 (height, width, 3)."""
        flat = latents[0].float().permute(1, 2, 0).nan_to_num()
        return to_bytes(flat @ self.weight[:-1] + self.weight[-1])


def fit_preview(vae: Vae, seed: int = 0) -> PreviewMap:
    """Least squares over a few decoded random latents, smooth and rough; a fraction of a second."""
    noise = torch.Generator().manual_seed(seed)
    channels = vae.channels
    latents = torch.cat([_random_latents(channels, noise) for _ in range(_SAMPLES)])
    rows, targets = [], []
    for sample in torch.split(latents, 1):
        pixels = vae.decode(sample)
        colours = nnf.adaptive_avg_pool2d(pixels.float().clamp(-1, 1), (_SIDE, _SIDE)).cpu()
        rows.append(_positions(sample))
        targets.append(_positions(colours))
    ones = torch.ones(_SIDE * _SIDE * _SAMPLES, 1)
    inputs = torch.cat([torch.cat(rows), ones], dim=1)
    normal = inputs.T @ inputs + _RIDGE * torch.eye(channels + 1)
    weight = torch.linalg.solve(normal, inputs.T @ torch.cat(targets))
    return PreviewMap(weight.to(pixels.device))


def to_bytes(colours: torch.Tensor) -> ByteArray:
    """[-1, 1] to uint8, rounded as diffusers rounds."""
    scaled = (colours * 0.5 + 0.5).clamp(0, 1) * 255
    array: ByteArray = scaled.round().to(torch.uint8).cpu().numpy()
    return array


def _random_latents(channels: int, noise: torch.Generator) -> torch.Tensor:
    """Coarse noise enlarged plus fine noise, unit variance in all."""
    coarse = torch.randn((1, channels, 3, 3), generator=noise)
    fine = torch.randn((1, channels, _SIDE, _SIDE), generator=noise)
    smooth = nnf.interpolate(coarse, size=(_SIDE, _SIDE), mode="bilinear", align_corners=True)
    return 1.2 * smooth + 0.4 * fine


def _positions(maps: torch.Tensor) -> torch.Tensor:
    """(1, channels, height, width) to (height * width, channels)."""
    return maps[0].permute(1, 2, 0).reshape(-1, maps.shape[1])
