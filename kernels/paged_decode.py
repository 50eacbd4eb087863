"""Decode attention over the paged KV cache, split over the context.

One program reads one part of one row's context for one key-value head, for all query heads of its group and
all of the row's new tokens at once, so that every key and value is read once. The parts are merged by the
logarithm of their sums. Sources: Flash-Decoding (Dao et al., 2023), LeanAttention (Sanovar et al., 2024);
grouped heads (Ainslie et al., 2023); a window (Beltagy et al., 2020).

Layouts: see `kernels.paged`, whose `paged_attention` is the specification. q `[tokens, heads, head_dim]`, any
strides but the last; dtypes fp32, bf16, fp16; sums and the parts in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import DOT_SIDE, INTERPRETED, ceil_to, dot, power_of_2, processors
from kernels.paged import PagedRows

# Keys read at a time, and the shortest part of a context that is worth a program.
KEYS = 64
SHORTEST_PART = 256


@triton.jit
def attend_part(
    queries: Any,
    cache: Any,
    pages: Any,
    head: Any,
    kv_heads: Any,
    head_stride: Any,
    slot_stride: Any,
    start: Any,
    end: Any,
    fresh_from: Any,
    position: Any,
    bits: Any,
    window: Any,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    TREE: tl.constexpr,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
    WIDEN: tl.constexpr,
) -> Any:
    """Attention of `queries` `[M, WIDE]` over positions start..end-1: (weighted values `[M, WIDE]` fp32, not
    divided; sums `[M]`; greatest scores `[M]`, -inf where nothing is seen)."""
    d = tl.arange(0, WIDE)
    inside = d < SIZE
    best = tl.full([M], -float("inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    found = tl.zeros([M, WIDE], tl.float32)
    for at in range(start, end, BLOCK):
        key = at + tl.arange(0, BLOCK)
        held = key < end
        page = tl.load(pages + key // PAGE, mask=held, other=0).to(tl.int64)
        slot = (page * PAGE + key % PAGE) * slot_stride
        keys = tl.load(
            cache + head.to(tl.int64) * head_stride + slot[None, :] + d[:, None],
            mask=held[None, :] & inside[:, None],
            other=0.0,
        )
        scores = dot(queries, keys, WIDEN)
        seen = held[None, :] & (position[:, None] >= 0)
        if TREE:
            fresh = key - fresh_from
            bit = (bits[:, None] >> tl.maximum(fresh, 0)[None, :].to(tl.int64)) & 1
            seen = seen & ((fresh < 0)[None, :] | (bit == 1))
            if WINDOW:
                seen = seen & ((fresh >= 0)[None, :] | (key[None, :] > position[:, None] - window))
        else:
            if CAUSAL:
                seen = seen & (key[None, :] <= position[:, None])
            if WINDOW:
                seen = seen & (key[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, -float("inf"))
        highest = tl.maximum(best, tl.max(scores, 1))
        base = tl.where(highest == -float("inf"), 0.0, highest)
        weights = tl.exp(scores - base[:, None])
        shrink = tl.exp(best - base)
        values = tl.load(
            cache + (kv_heads + head).to(tl.int64) * head_stride + slot[:, None] + d[None, :],
            mask=held[:, None] & inside[None, :],
            other=0.0,
        )
        total = total * shrink + tl.sum(weights, 1)
        found = found * shrink[:, None] + dot(weights.to(values.dtype), values, WIDEN)
        best = highest
    return found, total, best


@triton.jit
def _decode(
    q: Any,
    cache: Any,
    out: Any,
    sums: Any,
    first: Any,
    count: Any,
    context: Any,
    begin: Any,
    pages: Any,
    visible: Any,
    positions: Any,
    q_token: Any,
    q_head: Any,
    head_stride: Any,
    slot_stride: Any,
    pages_row: Any,
    part: Any,
    parts: Any,
    window: Any,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    TREE: tl.constexpr,
    WINDOW: tl.constexpr,
    SHARED: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:
    row, kv_head, number = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    fresh = tl.load(count + row)
    length = tl.load(context + row)
    earlier = length - fresh
    start = number * part
    if SHARED:
        start += tl.load(begin + row)
    end = tl.minimum(start + part, length)
    if WINDOW:
        start = tl.maximum(start, earlier - window + 1)

    m = tl.arange(0, M)
    query = m // GROUP
    live = query < fresh
    token = tl.load(first + row) + query
    head = kv_head * GROUP + m % GROUP
    d = tl.arange(0, WIDE)
    queries = tl.load(
        q + token[:, None] * q_token + head[:, None] * q_head + d[None, :],
        mask=live[:, None] & (d < SIZE)[None, :],
        other=0.0,
    )
    position = tl.where(live, earlier + query, -1)
    bits = tl.zeros([M], tl.int64)
    if TREE:
        bits = tl.load(visible + token, mask=live, other=0)
        position = tl.load(positions + token, mask=live, other=-1)
    if fresh == 0:
        end = start
    found, total, best = attend_part(
        queries,
        cache,
        pages + row * pages_row,
        kv_head,
        kv_heads,
        head_stride,
        slot_stride,
        start,
        end,
        earlier,
        position,
        bits,
        window,
        M,
        SIZE,
        WIDE,
        PAGE,
        BLOCK,
        TREE,
        WINDOW,
        True,
        WIDEN,
    )
    place = (token * (kv_heads * GROUP) + head) * parts + number
    total = tl.where(total == 0.0, 1.0, total)
    tl.store(sums + place, best + tl.log(total), mask=live)
    tl.store(
        out + place[:, None] * SIZE + d[None, :],
        found / total[:, None],
        mask=live[:, None] & (d < SIZE)[None, :],
    )


@triton.jit
def _merge(
    parts_out: Any,
    sums: Any,
    out: Any,
    parts: Any,
    PARTS: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """One query head of one token: parts weighted by the exponentials of their log-sums."""
    place = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, PARTS)
    d = tl.arange(0, WIDE)
    logs = tl.load(sums + place * parts + number, mask=number < parts, other=-float("inf"))
    base = tl.max(logs, 0)
    weights = tl.where(logs == -float("inf"), 0.0, tl.exp(logs - tl.where(base == -float("inf"), 0.0, base)))
    found = tl.load(
        parts_out + (place * parts + number[:, None]) * SIZE + d[None, :],
        mask=(weights > 0.0)[:, None] & (d < SIZE)[None, :],
        other=0.0,
    )
    total = tl.sum(weights, 0)
    merged = tl.sum(found * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + place * SIZE + d, merged.to(out.dtype.element_ty), mask=d < SIZE)


def parts_for(rows: PagedRows, kv_heads: int, skipped: int, device: torch.device) -> tuple[int, int]:
    """(number of parts, their length): enough programs to fill the device, none needlessly short."""
    length = max(1, rows.longest - skipped)
    wanted = max(1, 2 * processors(device) // max(1, rows.first.numel() * kv_heads))
    parts = min(wanted, -(-length // SHORTEST_PART))
    part = ceil_to(-(-length // parts), KEYS)
    return -(-length // part), part


def decode_parts(
    q: Tensor,
    cache: Tensor,
    rows: PagedRows,
    out: Tensor,
    sums: Tensor,
    part: int,
    number: int,
    begin: Tensor | None = None,
) -> None:
    """Parts 0 to `number` - 1 of every row, into `out` fp32 `[tokens, heads, parts, head_dim]` and `sums`
    fp32 `[tokens, heads, parts]`. `begin` int32 `[rows]`: where each row's first part starts, None for
    0."""
    heads, size = q.shape[1:]
    kv_heads = cache.shape[0] // 2
    group = heads // kv_heads
    tree = rows.visible is not None
    _decode[(rows.first.numel(), kv_heads, number)](
        q,
        cache,
        out,
        sums,
        rows.first,
        rows.count,
        rows.context,
        rows.first if begin is None else begin,
        rows.pages,
        rows.visible if tree else rows.first,
        rows.position if tree else rows.first,
        q.stride(0),
        q.stride(1),
        cache.stride(0),
        cache.stride(1),
        rows.pages.stride(0),
        part,
        sums.shape[2],
        rows.window,
        GROUP=group,
        M=power_of_2(rows.most * group, DOT_SIDE),
        SIZE=size,
        WIDE=power_of_2(size, DOT_SIDE),
        PAGE=rows.page,
        BLOCK=KEYS,
        TREE=tree,
        WINDOW=rows.window > 0,
        SHARED=begin is not None,
        WIDEN=INTERPRETED,
    )


def merge(out: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """`[tokens, heads * head_dim]` from the parts of `decode_parts`."""
    tokens, heads, parts, size = out.shape
    merged = out.new_empty((tokens, heads * size), dtype=dtype)
    _merge[(tokens * heads,)](
        out, sums, merged, parts, PARTS=power_of_2(parts), SIZE=size, WIDE=power_of_2(size)
    )
    return merged


def paged_decode(q: Tensor, cache: Tensor, rows: PagedRows) -> Tensor:
    """`kernels.paged.paged_attention` for rows of few new tokens (up to 64). Tokens of no row get zeros."""
    tokens, heads, size = q.shape
    number, part = parts_for(rows, cache.shape[0] // 2, 0, q.device)
    out = q.new_empty((tokens, heads, number, size), dtype=torch.float32)
    sums = q.new_full((tokens, heads, number), -torch.inf, dtype=torch.float32)
    decode_parts(q, cache, rows, out, sums, part, number)
    return merge(out, sums, q.dtype)
