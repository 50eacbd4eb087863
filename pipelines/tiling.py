"""Long convolutions in tiles of time, with a preemption point before each, without forking the model's code.

A one-dimensional convolution over seconds of sound is one call of hundreds of milliseconds; no hook between
modules can interrupt it. `tile_convolutions` gives each such module a `forward` that computes the same
outputs from the same inputs, tile by tile. Results differ from the whole call by rounding alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from pipelines.interruptible import point

MULTIPLICATIONS_PER_TILE = 100_000_000


def tile_convolutions(model: nn.Module, multiplications: int = MULTIPLICATIONS_PER_TILE) -> int:
    """Tiles every Conv1d and every ConvTranspose1d below `model` that works with zero padding
    given as numbers. multiplications: at most so many in a tile. Returns how many modules it changed.
    """
    count = 0
    for module in model.modules():
        forward: Callable[[torch.Tensor], torch.Tensor] | None = None
        if isinstance(module, nn.Conv1d) and _plain(module):
            forward = _TiledConv(module, multiplications)
        elif isinstance(module, nn.ConvTranspose1d) and _plain(module) and module.output_padding == (0,):
            forward = _TiledTransposed(module, multiplications)
        if forward is not None:
            module.__dict__["forward"] = forward
            count += 1
    return count


def _plain(module: nn.Conv1d | nn.ConvTranspose1d) -> bool:
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _tile(module: nn.Conv1d | nn.ConvTranspose1d, multiplications: int) -> int:
    """Steps of a tile: outputs of a convolution, inputs of a transposed one."""
    cost = module.in_channels * module.out_channels * module.kernel_size[0] // module.groups
    return max(16, multiplications // max(1, cost))


class _TiledConv:
    """x (batch, channels, time) -> as the module's own forward."""

    def __init__(self, module: nn.Conv1d, multiplications: int) -> None:
        self._module = module
        self._tile = _tile(module, multiplications)
        self._reach = (module.kernel_size[0] - 1) * module.dilation[0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        m = self._module
        padding = int(m.padding[0])
        stride = m.stride[0]
        tile = max(16, self._tile // x.shape[0])
        total = (x.shape[-1] + 2 * padding - self._reach - 1) // stride + 1
        if total <= tile:
            return F.conv1d(x, m.weight, m.bias, stride, padding, m.dilation, m.groups)
        x = F.pad(x, (padding, padding))
        parts = []
        for start in range(0, total, tile):
            point()
            piece = x[..., start * stride : (min(start + tile, total) - 1) * stride + self._reach + 1]
            parts.append(F.conv1d(piece, m.weight, m.bias, stride, 0, m.dilation, m.groups))
        return torch.cat(parts, dim=-1)


class _TiledTransposed:
    """x (batch, channels, time) -> as the module's own forward; each tile is computed with the inputs that
    reach into it from both sides."""

    def __init__(self, module: nn.ConvTranspose1d, multiplications: int) -> None:
        self._module = module
        self._tile = _tile(module, multiplications)
        reach = (module.kernel_size[0] - 1) * module.dilation[0]
        self._halo = -(-reach // module.stride[0])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        m = self._module
        stride, padding, length = m.stride[0], int(m.padding[0]), x.shape[-1]
        tile = max(16, self._tile // x.shape[0])
        if length <= tile:
            return self._whole(x)
        total = (length - 1) * stride - 2 * padding + m.dilation[0] * (m.kernel_size[0] - 1) + 1
        edges = [*range(0, length, tile), length]
        parts = []
        for start, end in itertools.pairwise(edges):
            point()
            first = max(0, start - self._halo)
            out = self._whole(x[..., first : min(length, end + self._halo)])
            stop = total if end == length else end * stride
            parts.append(out[..., (start - first) * stride : stop - first * stride])
        return torch.cat(parts, dim=-1)

    def _whole(self, x: torch.Tensor) -> torch.Tensor:
        m = self._module
        padding = int(m.padding[0])
        return F.conv_transpose1d(x, m.weight, m.bias, m.stride, padding, 0, m.groups, m.dilation)
