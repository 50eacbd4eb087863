"""Executable specifications in plain torch of the decoder's fused kernels; what they fuse is in
`reference`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kernels.reference import append, rms_norm, rotate_


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """(x + residual, its `rms_norm`)."""
    total = x + residual
    return total, rms_norm(total, weight, eps)


def rope_append(
    mixed: Tensor,
    rotation: Tensor,
    cache: Tensor,
    slots: Tensor,
    heads: int,
    norms: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """`rotate_` queries and keys of `[tokens, heads + 2 * kv_heads, head_dim]` in place, then `append` keys
    and values. `norms` (weight of the query, weight of the key, eps): each head's `rms_norm` before
    that."""
    keys = cache.shape[0] // 2
    if norms is not None:
        query, key, eps = norms
        mixed[:, :heads].copy_(rms_norm(mixed[:, :heads], query, eps))
        mixed[:, heads : heads + keys].copy_(rms_norm(mixed[:, heads : heads + keys], key, eps))
    rotate_(mixed[:, : heads + keys], rotation)
    append(cache, slots, mixed[:, heads:])


def gate_multiply(gate_up: Tensor, act: str) -> Tensor:
    """act(gate) * up of `[tokens, 2 * width]`, gate first; act "silu", "gelu" or "gelu_tanh"."""
    gate, up = gate_up.chunk(2, dim=-1)
    if act == "silu":
        return F.silu(gate).mul_(up)
    return F.gelu(gate, approximate="tanh" if act == "gelu_tanh" else "none").mul_(up)
