"""Pairs of operations in diffusers' modules that `kernels` computes in one pass, without forking their code:
group norm and SiLU of U-Nets and VAEs, layer norm and modulation of transformers.

`fuse` is called where kernels may run, on a GPU; elsewhere the modules stay as they are. Which calls take
a kernel is decided call by call, by `kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kernels import group_norm_silu, modulate

_CHUNKS = {"AdaLayerNormZero": 6, "AdaLayerNormZeroSingle": 3}


def fuse(network: Any) -> int:
    """Changes the forward methods below `network`; returns how many pairs there are."""
    pairs = 0
    for module in list(network.modules()):
        kind = type(module).__name__
        if kind == "ResnetBlock2D":
            norms = [module.norm1] + ([module.norm2] if module.time_embedding_norm == "default" else [])
            pairs += _activate(module, "nonlinearity", norms)
        elif isinstance(getattr(module, "conv_act", None), nn.Module):
            pairs += _activate(module, "conv_act", [module.conv_norm_out])
        elif kind in _CHUNKS and getattr(module, "emb", None) is None and _plain(module.norm):
            module.forward = _modulated(module, _CHUNKS[kind])
            pairs += 1
        elif kind == "AdaLayerNormContinuous" and _plain(module.norm):
            module.forward = _modulated_at_last(module)
            pairs += 1
    return pairs


class Activation(nn.Module):
    """An activation that leaves alone what its norm has activated. What says so is the tensor, so suspended
    calls never meet."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """`x` activated once."""
        out: Tensor = x if getattr(x, "activated", False) else self.inner(x)
        return out


def _activate(module: Any, activation: str, norms: list[Any]) -> int:
    norms = [norm for norm in norms if type(norm) is nn.GroupNorm and norm.affine]
    inner = getattr(module, activation)
    if type(inner) is not nn.SiLU or not norms:
        return 0
    setattr(module, activation, Activation(inner))
    for norm in norms:
        norm.forward = _activated(norm)
    return len(norms)


def _activated(norm: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        out = group_norm_silu(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)
        out.activated = True  # type: ignore[attr-defined]
        return out

    return forward


def _plain(norm: Any) -> bool:
    """A layer norm over the last dimension alone, without weights, in the dtype of its input."""
    return isinstance(norm, nn.LayerNorm) and type(norm).__name__ == "LayerNorm" and norm.weight is None


def _modulated(module: Any, chunks: int) -> Callable[..., Any]:
    """AdaLayerNormZero and its single-stream form: shift and scale of this norm, then what is for later."""

    def forward(x: Tensor, *_: Any, emb: Tensor, **__: Any) -> Any:
        shift, scale, *others = module.linear(module.silu(emb)).chunk(chunks, dim=1)
        return modulate(x, scale, shift, module.norm.eps), *others

    return forward


def _modulated_at_last(module: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """AdaLayerNormContinuous: scale first."""

    def forward(x: Tensor, conditioning_embedding: Tensor) -> Tensor:
        scale, shift = torch.chunk(module.linear(module.silu(conditioning_embedding).to(x.dtype)), 2, dim=1)
        return modulate(x, scale, shift, module.norm.eps)

    return forward
