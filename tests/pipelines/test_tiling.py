"""Tiled convolutions: the same results, with points between the tiles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.interruptible import interruptible
from pipelines.tiling import tile_convolutions

MODULES = [
    nn.Conv1d(3, 4, 7, padding=3),
    nn.Conv1d(3, 6, 3, dilation=5, padding=5, groups=3),
    nn.Conv1d(3, 4, 1, bias=False),
    nn.Conv1d(3, 4, 5),
    nn.Conv1d(3, 4, 7, stride=3),
    nn.Conv1d(3, 4, 5, stride=4, dilation=2, padding=3),
    nn.ConvTranspose1d(3, 4, 16, stride=8, padding=4),
    nn.ConvTranspose1d(3, 4, 4, stride=2, padding=1),
    nn.ConvTranspose1d(3, 4, 7, stride=2, padding=0, dilation=2),
    nn.ConvTranspose1d(3, 4, 3, stride=5, padding=0),
]


@pytest.mark.parametrize("module", MODULES, ids=str)
@pytest.mark.parametrize("length", [1, 15, 16, 17, 33, 160])
@torch.inference_mode()
def test_tiles_equal_the_whole(module: nn.Module, length: int) -> None:
    x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(length))
    if isinstance(module, nn.Conv1d) and length + 2 * int(module.padding[0]) <= module.dilation[0] * (
        module.kernel_size[0] - 1
    ):
        return
    whole = type(module).forward(module, x)
    assert tile_convolutions(module, multiplications=1) == 1
    torch.testing.assert_close(module(x), whole, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_each_tile_is_a_point() -> None:
    module = nn.Conv1d(3, 4, 7, padding=3)
    tile_convolutions(module, multiplications=1)
    assert sum(1 for _ in interruptible(lambda: module(torch.zeros(1, 3, 160)))) == 10


def test_what_cannot_be_tiled_is_left_alone() -> None:
    odd = nn.ModuleList([nn.Conv1d(2, 2, 3, padding="same"), nn.Linear(2, 2)])
    assert tile_convolutions(odd) == 0
