"""Norms of query and key heads, rotary positions, and the write of keys and values to the paged cache: one
pass over the product of the attention's input.

mixed `[tokens, heads + 2 * kv_heads, head_dim]` (fp32, bf16, fp16; any strides but the last): query heads are
rotated in place; keys (rotated) and values go to `slots`, int64 `[tokens]`, of the cache `[2 * kv_heads,
slots, head_dim]`; what mixed holds of them afterwards is undefined. rotation: complex64 `[tokens, 1,
head_dim / 2]`, rotary pairs side by side. Sources: Su et al. (2021); norms of query and key: Henry et al.
(2020). Specification: `kernels.reference.rope_append`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import power_of_2


@triton.jit
def _rope_append(
    mixed: tl.tensor,
    rotation: tl.tensor,
    cache: tl.tensor,
    slots: tl.tensor,
    q_weight: tl.tensor,
    k_weight: tl.tensor,
    eps: tl.tensor,
    token_stride: tl.tensor,
    mixed_head: tl.tensor,
    cache_head: tl.tensor,
    cache_slot: tl.tensor,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    NORM: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    pair = tl.arange(0, HALF)
    held = (head < HEADS + 2 * KV_HEADS)[:, None] & (pair < SIZE // 2)[None, :]
    source = mixed + token * token_stride + head[:, None] * mixed_head + 2 * pair[None, :]
    even = tl.load(source, mask=held, other=0.0).to(tl.float32)
    odd = tl.load(source + 1, mask=held, other=0.0).to(tl.float32)
    turns = (head < HEADS + KV_HEADS)[:, None]
    is_query = (head < HEADS)[:, None]
    if NORM:
        scale = tl.rsqrt((tl.sum(even * even, 1) + tl.sum(odd * odd, 1)) / SIZE + tl.load(eps))[:, None]
        inside = (pair < SIZE // 2)[None, :]
        q_even = tl.load(q_weight + 2 * pair[None, :], mask=inside, other=0.0).to(tl.float32)
        q_odd = tl.load(q_weight + 2 * pair[None, :] + 1, mask=inside, other=0.0).to(tl.float32)
        k_even = tl.load(k_weight + 2 * pair[None, :], mask=inside, other=0.0).to(tl.float32)
        k_odd = tl.load(k_weight + 2 * pair[None, :] + 1, mask=inside, other=0.0).to(tl.float32)
        dtype = mixed.dtype.element_ty
        normed_even = ((even * scale).to(dtype).to(tl.float32) * tl.where(is_query, q_even, k_even)).to(dtype)
        normed_odd = ((odd * scale).to(dtype).to(tl.float32) * tl.where(is_query, q_odd, k_odd)).to(dtype)
        even = tl.where(turns, normed_even.to(tl.float32), even)
        odd = tl.where(turns, normed_odd.to(tl.float32), odd)
    angle = rotation + token * (SIZE // 2 * 2) + 2 * pair[None, :]
    cosine = tl.load(angle, mask=(pair < SIZE // 2)[None, :], other=0.0)
    sine = tl.load(angle + 1, mask=(pair < SIZE // 2)[None, :], other=0.0)
    new_even = tl.where(turns, even * cosine - odd * sine, even).to(mixed.dtype.element_ty)
    new_odd = tl.where(turns, odd * cosine + even * sine, odd).to(mixed.dtype.element_ty)
    tl.store(source, new_even, mask=held & is_query)
    tl.store(source + 1, new_odd, mask=held & is_query)
    slot = tl.load(slots + token)
    target = cache + (head - HEADS).to(tl.int64)[:, None] * cache_head + slot * cache_slot + 2 * pair[None, :]
    tl.store(target, new_even, mask=held & (head >= HEADS)[:, None])
    tl.store(target + 1, new_odd, mask=held & (head >= HEADS)[:, None])


def rope_append(
    mixed: Tensor,
    rotation: Tensor,
    cache: Tensor,
    slots: Tensor,
    heads: int,
    norms: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    """`norms`: weights `[head_dim]` of the query and of the key, and eps, a scalar fp32 tensor."""
    tokens, all_heads, size = mixed.shape
    assert mixed.stride(2) == 1 and cache.stride(2) == 1
    if not tokens:
        return
    turns = torch.view_as_real(rotation).contiguous()
    rows = 8
    query, key, eps = norms if norms is not None else (turns, turns, turns)
    _rope_append[(tokens, -(-all_heads // rows))](
        mixed,
        turns,
        cache,
        slots,
        query,
        key,
        eps,
        mixed.stride(0),
        mixed.stride(1),
        cache.stride(0),
        cache.stride(1),
        HEADS=heads,
        KV_HEADS=cache.shape[0] // 2,
        SIZE=size,
        HALF=power_of_2(size // 2),
        ROWS=rows,
        NORM=norms is not None,
    )
