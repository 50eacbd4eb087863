"""How close two pictures are: PSNR in dB, and SSIM (Wang et al. 2004) with its Gaussian window."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as nnf

Pictures = npt.NDArray[np.uint8]
_WINDOW: Final = 11
_SIGMA: Final = 1.5


def psnr(pictures: Pictures, wanted: Pictures) -> npt.NDArray[np.float64]:
    """dB of each picture, uint8 (n, h, w, 3) against the same; equal pictures count as 99 dB."""
    errors = ((pictures.astype(np.float64) - wanted) ** 2).mean((1, 2, 3))
    return np.asarray(10 * np.log10(255.0**2 / np.maximum(errors, 255.0**2 * 10**-9.9)))


def ssim(pictures: Pictures, wanted: Pictures) -> npt.NDArray[np.float64]:
    """Mean structural similarity of each picture's luma, uint8 (n, h, w, 3) against the same; 1 is equal."""
    x, y = _luma(pictures), _luma(wanted)
    mean_x, mean_y = _blur(x), _blur(y)
    spread_x, spread_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    shared = _blur(x * y) - mean_x * mean_y
    light, contrast = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_x * mean_y + light) * (2 * shared + contrast)
    below = (mean_x**2 + mean_y**2 + light) * (spread_x + spread_y + contrast)
    return np.asarray((above / below).mean((1, 2, 3)).numpy())


def _luma(pictures: Pictures) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    return (torch.from_numpy(pictures).double() @ weights).unsqueeze(1)


def _blur(pictures: torch.Tensor) -> torch.Tensor:
    place = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    row = torch.exp(-(place**2) / (2 * _SIGMA**2))
    row = row / row.sum()
    down = nnf.conv2d(pictures, row.view(1, 1, -1, 1))
    return nnf.conv2d(down, row.view(1, 1, 1, -1))
