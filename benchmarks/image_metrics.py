"""How alike images are: PSNR of latents and of pixels, SSIM."""

from __future__ import annotations

import torch
from torch.nn import functional as nnf

_WINDOW = 11
_SIGMA = 1.5


def latent_psnr(found: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """dB for each of (n, channels, height, width); the peak is the range of what was wanted."""
    flat = wanted.flatten(1)
    peak = flat.max(dim=1).values - flat.min(dim=1).values
    return _decibels(found, wanted, peak)


def pixel_psnr(found: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """dB for each of (n, height, width, 3), 0 to 255."""
    return _decibels(found, wanted, torch.full((len(wanted),), 255.0))


def ssim(found: torch.Tensor, wanted: torch.Tensor) -> list[float]:
    """Structural similarity (Wang et al. 2004) for each of (n, height, width, 3), 0 to 255: Gaussian window
    of 11 pixels, mean over the colours."""
    x, y = (pixels.float().permute(0, 3, 1, 2).flatten(0, 1).unsqueeze(1) for pixels in (found, wanted))
    offsets = torch.arange(_WINDOW) - _WINDOW // 2
    bell = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = torch.outer(bell, bell)
    window = (window / window.sum()).view(1, 1, _WINDOW, _WINDOW)
    mean_x, mean_y = nnf.conv2d(x, window), nnf.conv2d(y, window)
    var_x = nnf.conv2d(x * x, window) - mean_x**2
    var_y = nnf.conv2d(y * y, window) - mean_y**2
    both = nnf.conv2d(x * y, window) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    alike = alike / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return [float(value) for value in alike.mean(dim=(1, 2, 3)).view(-1, 3).mean(dim=1)]


def _decibels(found: torch.Tensor, wanted: torch.Tensor, peak: torch.Tensor) -> list[float]:
    error = (found.float() - wanted.float()).square().flatten(1).mean(dim=1)
    return [min(float(value), 99.0) for value in 10 * torch.log10(peak**2 / error)]
