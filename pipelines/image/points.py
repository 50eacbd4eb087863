"""Where a diffusion model may be interrupted: the entries of these submodules are preemption points.

Convolutions and attention are where the time goes; what lies between two of them is element-wise.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from pipelines.interruptible import add_points

_BLOCKS: Final = (
    "Attention",
    "CLIPAttention",
    "CLIPMLP",
    "FeedForward",
    "FluxAttention",
    "FluxSingleTransformerBlock",
    "Gemma2Attention",
    "Gemma2MLP",
    "T5Attention",
    "T5LayerFF",
)
_LARGE: Final = 1 << 20


def make_preemptible(*modules: Any) -> int:
    """Adds the points; returns how many. Calls outside `interruptible` are not affected."""
    return add_points(
        part
        for module in modules
        for part in module.modules()
        if isinstance(part, torch.nn.Conv2d) or type(part).__name__ in _BLOCKS or _large(part)
    )


def _large(part: torch.nn.Module) -> bool:
    """A matrix of a million weights: one such product can take as long as a small model's whole block."""
    return isinstance(part, torch.nn.Linear) and part.weight.numel() >= _LARGE
