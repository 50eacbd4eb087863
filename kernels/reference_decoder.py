"""Executable specifications in plain torch of the decoder's fused kernels; what they fuse is in
`reference`."""

from __future__ import annotations

import torch
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


def accept_drafts(
    drawn: Tensor, drafted: Tensor, parent: Tensor, first: Tensor, count: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Walk each row's tree from node 0 as long as a child drafted what was drawn; see `kernels.accept`."""
    path = torch.full((first.numel(), most), -1, dtype=torch.int32)
    for row, (start, nodes) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
        here, steps = 0 if nodes else -1, 0
        while here >= 0:
            path[row, steps] = here
            steps += 1
            token = int(drawn[start + here])
            children = [n for n in range(1, nodes) if int(parent[start + n]) == here]
            here = next((n for n in children if int(drafted[start + n]) == token), -1)
    return path.to(drawn.device), (path >= 0).sum(1, dtype=torch.int32).to(drawn.device)
