"""PSNR and SSIM of known cases."""

from __future__ import annotations

import numpy as np
import pytest

from training.image_quality import psnr, ssim


def _picture(seed: int) -> np.ndarray:
    ramp = np.linspace(40, 200, 48)[None, :, None] * np.ones((48, 48, 3))
    return (ramp + np.random.default_rng(seed).normal(0, 5, (48, 48, 3))).clip(0, 255).astype(np.uint8)[None]


def test_equal_pictures() -> None:
    assert psnr(_picture(0), _picture(0)) == pytest.approx([99.0])
    assert ssim(_picture(0), _picture(0)) == pytest.approx([1.0])


def test_a_constant_difference_of_ten_levels() -> None:
    dark = np.full((2, 32, 32, 3), 100, dtype=np.uint8)
    assert psnr(dark, dark + 10) == pytest.approx([28.13, 28.13], abs=0.01)
    # Without structure only the luminance term is left: (2ab + c) / (a^2 + b^2 + c).
    assert ssim(dark, dark + 10) == pytest.approx([22006.5 / 22106.5] * 2, abs=1e-4)


def test_structure_counts_for_ssim() -> None:
    picture = _picture(1)
    brighter = (picture.astype(int) + 10).clip(0, 255).astype(np.uint8)
    flat = np.full_like(picture, int(picture.mean()))
    assert ssim(brighter, picture)[0] > 0.9 > ssim(flat, picture)[0]
