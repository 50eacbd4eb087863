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

from kernels.paged_plan import PagedPlan

# Up to this context decoding rows are gathered and computed together; beyond, the copy costs more than calls.
TOGETHER_CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Span:
    """One row of a packed batch: `count` new tokens from packed index `first` on, the last of which sees
    `context` tokens (itself included). `slots` are the context's places in the cache: a slice where they
    lie in one piece, which is read in place, or int64 `[context]`, on the host or on the cache's device.
    """

    first: int
    count: int
    context: int
    slots: slice | Tensor


@dataclass(frozen=True, slots=True)
class Together:
    """Rows of one token each that are computed at once: packed indices `rows` int64 `[n]`, None for all;
    `slots` int64 `[n * length]`, short rows repeating a slot of theirs; additive `mask` `[n, 1, length]`."""

    rows: Tensor | None
    slots: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How the rows of one slice attend; the same in every layer. `masks`: one a span, additive
    `[count, context]`, None where the causal triangle or nothing is masked. `paged`: the kernels' own plan,
    which then stands for all the rest."""

    spans: tuple[Span, ...]
    masks: tuple[Tensor | None, ...]
    together: Together | None
    paged: PagedPlan | None = None


def plan_attention(spans: Sequence[Span], cache: Tensor, window: int = 0) -> AttentionPlan:
    """Decide once a slice what `attend` does in each layer; `cache` gives dtype and device. window: how many
    tokens a query sees, itself included (Beltagy et al., 2020), 0 for all."""
    spans = [_within(_placed(span, cache.device), window) for span in spans]
    short = [span for span in spans if span.count == 1 and span.context <= TOGETHER_CONTEXT]
    if len(short) < 2:
        short = []
    chosen = {span.first for span in short}
    alone = tuple(span for span in spans if span.first not in chosen)
    together = _together(short, cache, every=not alone) if short else None
    return AttentionPlan(alone, tuple(_mask(span, cache, window) for span in alone), together)


def _placed(span: Span, device: torch.device) -> Span:
    """Its slots on the device."""
    if isinstance(span.slots, slice) or span.slots.device == device:
        return span
    return Span(span.first, span.count, span.context, span.slots.to(device))


def _within(span: Span, window: int) -> Span:
    """Without what no query of the row sees."""
    if not window:
        return span
    context = min(span.context, window + span.count - 1)
    if isinstance(span.slots, slice):
        return Span(span.first, span.count, context, slice(span.slots.stop - context, span.slots.stop))
    return Span(span.first, span.count, context, span.slots[span.context - context :])


def _mask(span: Span, cache: Tensor, window: int) -> Tensor | None:
    earlier = span.context - span.count
    if span.count == 1 or not (earlier or 0 < window < span.context):
        return None
    hidden = cache.new_full((span.count, span.context), -torch.inf)
    mask = hidden.triu(earlier + 1)
    return mask.add_(hidden.tril_(earlier - window)) if window else mask


def _together(spans: Sequence[Span], cache: Tensor, *, every: bool) -> Together:
    device = cache.device
    contexts = torch.tensor([[span.context] for span in spans], device=device)
    places = torch.arange(max(span.context for span in spans), device=device)
    seen = places < contexts
    if all(isinstance(span.slots, slice) for span in spans):
        starts = [[span.slots.start] for span in spans if isinstance(span.slots, slice)]
        slots = torch.tensor(starts, device=device) + places * seen
    else:
        slots = torch.zeros(seen.shape, dtype=torch.int64, device=device)
        for row, span in zip(slots, spans, strict=True):
            row[: span.context] = _numbers(span.slots, device)
            row[span.context :] = row[0]
    mask = torch.zeros(seen.shape, dtype=cache.dtype, device=device).masked_fill_(~seen, -torch.inf)
    rows = None if every else torch.tensor([span.first for span in spans], device=device)
    return Together(rows, slots.view(-1), mask.unsqueeze(1))


def _numbers(slots: slice | Tensor, device: torch.device) -> Tensor:
    return torch.arange(slots.start, slots.stop, device=device) if isinstance(slots, slice) else slots


def rms_norm(x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang, Sennrich, 2019).

    x `[tokens, width]`, computed in fp32; eps a scalar fp32 tensor, `weight` `[width]`.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scaled = x * torch.addcmul(eps, norm, norm, value=1.0 / x.shape[-1]).rsqrt_()
    return (scaled if x.dtype == torch.float32 else scaled.to(x.dtype)).mul_(weight)


def rotate_(x: Tensor, rotation: Tensor) -> None:
    """Rotary positions in place: `x` `[tokens, heads, head_dim]`, `rotation` complex64
    `[tokens, 1, head_dim / 2]`. Computed in fp32."""
    pairs = x.view(*x.shape[:2], x.shape[2] // 2, 2)
    if x.dtype == torch.float32:
        torch.view_as_complex(pairs).mul_(rotation)
    else:
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.float()) * rotation))


def append(cache: Tensor, slots: Tensor, new: Tensor) -> None:
    """Write keys and values `new` `[tokens, 2 * kv_heads, head_dim]` to their slots, int64 `[tokens]`."""
    cache.index_copy_(1, slots, new.transpose(0, 1))


def attend(q: Tensor, cache: Tensor, plan: AttentionPlan) -> Tensor:
    """Causal attention of packed queries `[tokens, heads, head_dim]` over the cache.

    Returns `[tokens, heads * head_dim]`. Queries or keys already carry the scale of the scores.
    """
    if plan.together is not None and plan.together.rows is None:
        return _attend_together(q, cache, plan.together)
    if len(plan.spans) == 1 and plan.together is None:
        return _attend_row(q, cache, plan.spans[0], plan.masks[0])
    out = q.new_empty(q.shape[0], q.shape[1] * q.shape[2])
    if plan.together is not None:
        out[plan.together.rows] = _attend_together(q[plan.together.rows], cache, plan.together)
    for span, mask in zip(plan.spans, plan.masks, strict=True):
        rows = slice(span.first, span.first + span.count)
        out[rows] = _attend_row(q[rows], cache, span, mask)
    return out


def _attend_together(q: Tensor, cache: Tensor, group: Together) -> Tensor:
    kv_heads, size = cache.shape[0] // 2, cache.shape[2]
    rows, length = group.mask.shape[0], group.mask.shape[2]
    context = cache.index_select(1, group.slots).view(2 * kv_heads * rows, length, size)
    keys, values = context[: kv_heads * rows], context[kv_heads * rows :]
    grouped = q.view(rows, kv_heads, -1, size).transpose(0, 1).reshape(kv_heads * rows, -1, size)
    scores = torch.bmm(grouped, keys.transpose(1, 2)).view(kv_heads, rows, -1, length)
    weights = scores.add_(group.mask).softmax(-1)
    attended = torch.bmm(weights.view(kv_heads * rows, -1, length), values)
    return attended.view(kv_heads, rows, -1, size).transpose(0, 1).reshape(rows, -1)


def _attend_row(q: Tensor, cache: Tensor, span: Span, mask: Tensor | None) -> Tensor:
    kv_heads = cache.shape[0] // 2
    slots = span.slots
    context = cache[:, slots] if isinstance(slots, slice) else cache.index_select(1, slots)
    keys, values = context[:kv_heads], context[kv_heads:]
    if span.count == 1:
        grouped = q.view(kv_heads, -1, q.shape[-1])
        scores = torch.bmm(grouped, keys.transpose(1, 2))
        return torch.bmm(scores.softmax(-1), values).view(1, -1)
    attended = F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        keys.unsqueeze(0),
        values.unsqueeze(0),
        attn_mask=mask,
        is_causal=mask is None,
        scale=1.0,
        enable_gqa=q.shape[1] != kv_heads,
    )
    return attended[0].transpose(0, 1).reshape(span.count, -1)
