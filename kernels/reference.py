"""Executable specifications in plain torch of the decoder's kernels; a faster kernel must equal these.

Layouts: tokens of all rows are packed without padding, `[tokens, ...]`. The KV cache of one layer is
`[2 * kv_heads, slots, head_dim]`, keys first; a slot holds one token. Rotary pairs are neighbours
(`x[2i], x[2i + 1]`): the loader reorders the query and key weights of half-split models to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """One row of a packed batch: `count` new tokens from packed index `first` on, the last of which sees
    `context` tokens (itself included). `slots` are the context's places in the cache: a slice where they
    lie in one piece, which is read in place, or int64 `[context]`. `mask` (count > 1 with earlier context)
    is additive, `[count, context]` in the queries' dtype.
    """

    first: int
    count: int
    context: int
    slots: slice | Tensor
    mask: Tensor | None = None


def rms_norm(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang, Sennrich, 2019).

    x `[tokens, width]`, computed in fp32; eps a scalar fp32 tensor, `weight` `[width]`.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.addcmul(eps, norm, norm, value=1.0 / x.shape[-1]).rsqrt_()
    return (x * scale).to(x.dtype).mul_(weight)


def rotate_(x: Tensor, rotation: Tensor) -> None:
    """Rotary positions in place: `x` `[tokens, heads, head_dim]`, `rotation` complex64
    `[tokens, 1, head_dim / 2]`. Computed in fp32."""
    pairs = x.view(x.shape[0], x.shape[1], -1, 2)
    if x.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(rotation)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * rotation))


def append(cache: Tensor, slots: Tensor, new: Tensor) -> None:
    """Write keys and values `new` `[tokens, 2 * kv_heads, head_dim]` to their slots, int64 `[tokens]`."""
    cache.index_copy_(1, slots, new.transpose(0, 1))


def attend(q: Tensor, cache: Tensor, spans: Sequence[Span], scale: float) -> Tensor:
    """Causal attention of packed queries `[tokens, heads, head_dim]` over the cache.

    Returns `[tokens, heads * head_dim]`; scores are multiplied by `scale`.
    """
    kv_heads = cache.shape[0] // 2
    if len(spans) == 1:
        return _attend_row(q, cache, spans[0], kv_heads, scale)
    out = q.new_empty(q.shape[0], q.shape[1] * q.shape[2])
    for span in spans:
        rows = slice(span.first, span.first + span.count)
        out[rows] = _attend_row(q[rows], cache, span, kv_heads, scale)
    return out


def _attend_row(q: Tensor, cache: Tensor, span: Span, kv_heads: int, scale: float) -> Tensor:
    places = span.slots
    context = cache[:, places] if isinstance(places, slice) else cache.index_select(1, places)
    keys, values = context[:kv_heads], context[kv_heads:]
    if span.count == 1:
        grouped = q.view(kv_heads, -1, q.shape[-1])
        scores = torch.bmm(grouped, keys.transpose(1, 2)).mul_(scale)
        return torch.bmm(scores.softmax(-1), values).view(1, -1)
    attended = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=span.mask,
        is_causal=span.mask is None,
        scale=scale,
        enable_gqa=q.shape[1] != kv_heads,
    )
    return attended[0].transpose(0, 1).reshape(span.count, -1)
