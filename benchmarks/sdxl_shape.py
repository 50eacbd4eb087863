"""A U-Net of SDXL's shape with random weights, in plain torch: a real image's load on a machine without
diffusers.

Podell et al. (2023): three levels of two residual blocks, transformers of depth 0, 2 and 10 with
cross-attention to 77 tokens, and a middle of both. `forward` is a generator with a preemption point after
each block.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import group_norm_silu

Steps = Generator[None, None, Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Channels and depths of the levels, size of a head, width of the text, side of the latents."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    head: int
    text: int
    side: int


SDXL = Shape((320, 640, 1280), (0, 2, 10), 64, 2048, 128)
TINY = Shape((4, 4), (0, 1), 4, 6, 4)


class Residual(nn.Module):
    """Two convolutions, each behind a group norm and SiLU; the time is added between them."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.groups = min(32, inputs // 2, outputs // 2)
        self.norms = nn.ModuleList(nn.GroupNorm(self.groups, width) for width in (inputs, outputs))
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """`[rows, inputs, side, side]` to as many outputs."""
        hidden = self.first(self._activated(x, 0)) + self.time(time)[:, :, None, None]
        out: Tensor = self.skip(x) + self.second(self._activated(hidden, 1))
        return out

    def _activated(self, x: Tensor, which: int) -> Tensor:
        norm = self.norms[which]
        assert isinstance(norm, nn.GroupNorm)
        return group_norm_silu(x.contiguous(), self.groups, norm.weight, norm.bias, norm.eps)


class Attention(nn.Module):
    """To itself, or to the text."""

    def __init__(self, width: int, other: int, head: int) -> None:
        super().__init__()
        self.heads = width // head
        self.query, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.key_value = nn.Linear(other, 2 * width, bias=False)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """`[rows, tokens, width]`."""
        keys, values = (self._split(part) for part in self.key_value(other).chunk(2, dim=-1))
        found = F.scaled_dot_product_attention(self._split(self.query(x)), keys, values)
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Transformer(nn.Module):
    """Self-attention, cross-attention and a gated layer."""

    def __init__(self, width: int, text: int, head: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, width, head), Attention(width, text, head)
        self.gate_up, self.down = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """`[rows, tokens, width]`."""
        normed = self.norms[0](x)
        x = x + self.own(normed, normed)
        x = x + self.cross(self.norms[1](x), text)
        up, gate = self.gate_up(self.norms[2](x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(F.gelu(gate) * up)
        return out


class Stage(nn.Module):
    """A residual block and its transformers."""

    def __init__(self, inputs: int, outputs: int, depth: int, shape: Shape) -> None:
        super().__init__()
        self.residual = Residual(inputs, outputs, 4 * shape.channels[0])
        self.blocks = nn.ModuleList(Transformer(outputs, shape.text, shape.head) for _ in range(depth))

    def steps(self, x: Tensor, time: Tensor, text: Tensor) -> Steps:
        """A point after each block."""
        x = self.residual(x, time)
        yield
        if not len(self.blocks):
            return x
        flat = x.flatten(2).transpose(1, 2).contiguous()
        for block in self.blocks:
            flat = block(flat, text)
            yield
        return flat.transpose(1, 2).reshape(x.shape).contiguous()


class ShapedUNet(nn.Module):
    """The whole network; latents have four channels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        widths, depths = shape.channels, shape.depths
        self.time = nn.Sequential(
            nn.Linear(widths[0], 4 * widths[0]), nn.SiLU(), nn.Linear(4 * widths[0], 4 * widths[0])
        )
        self.enter = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, width = [widths[0]], widths[0]
        for level, (wide, depth) in enumerate(zip(widths, depths, strict=True)):
            for _ in range(2):
                self.down.append(Stage(width, wide, depth, shape))
                skips.append(wide)
                width = wide
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(wide, wide, 3, stride=2, padding=1))
                skips.append(wide)
        self.middle = nn.ModuleList((Stage(width, width, depths[-1], shape), Stage(width, width, 0, shape)))
        for level in reversed(range(len(widths))):
            for _ in range(3):
                self.up.append(Stage(width + skips.pop(), widths[level], depths[level], shape))
                width = widths[level]
            if level:
                self.up.append(nn.Conv2d(width, width, 3, padding=1))
        self.leave = nn.Conv2d(width, 4, 3, padding=1)
        self.requires_grad_(False)

    def steps(self, latents: Tensor, times: Tensor, text: Tensor) -> Steps:
        """Latents `[rows, 4, side, side]`, times `[rows]`, text `[rows, 77, width]`; returns the output."""
        time = F.silu(self.time(waves(times, self.shape.channels[0]).to(latents.dtype)))
        x = self.enter(latents)
        kept = [x]
        for layer in self.down:
            x = (yield from layer.steps(x, time, text)) if isinstance(layer, Stage) else layer(x)
            kept.append(x)
        for stage in self.middle:
            assert isinstance(stage, Stage)
            x = yield from stage.steps(x, time, text)
        for layer in self.up:
            if isinstance(layer, Stage):
                x = yield from layer.steps(torch.cat((x, kept.pop()), dim=1), time, text)
            else:
                x = layer(F.interpolate(x, scale_factor=2.0))
        out: Tensor = self.leave(x)
        return out


def waves(times: Tensor, width: int) -> Tensor:
    """Sinusoids of the time, `[rows, width]`."""
    rates = torch.exp(torch.arange(width // 2, device=times.device) * (-9.21 / (width // 2)))
    angles = times.float().unsqueeze(1) * rates
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def shaped_unet(shape: Shape, dtype: torch.dtype, device: torch.device) -> ShapedUNet:
    """Torch's own initial weights, made on the device."""
    with torch.device(device):
        return ShapedUNet(shape).to(dtype).eval()


def evaluated(steps: Steps) -> Tensor:
    """To the end, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Tensor = end.value
            return found
