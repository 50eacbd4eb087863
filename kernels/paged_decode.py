"""Decode attention over the paged KV cache, split over the context.

One program reads one part of one row's context for one key-value head, for all query heads of its group and
all of the row's new tokens at once, so that every key and value is read once. The parts are merged by the
logarithm of their sums. Sources: Flash-Decoding (Dao et al., 2023), LeanAttention (Sanovar et al., 2024);
grouped heads (Ainslie et al., 2023); a window (Beltagy et al., 2020).

Layouts: see `kernels.paged`, whose `paged_attention` is the specification. q `[tokens, heads, head_dim]`, any
strides but the last; dtypes fp32, bf16, fp16; sums and the parts in fp32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention_tile import KEYS, attend_part, load_queries, store_part, tile_options
from kernels.launch import DOT_SIDE, ceil_to, power_of_2, processors
from kernels.paged import PagedRows

# Queries in a tile: heads of a group times new tokens. More take tiles side by side.
QUERIES = 128
# The shortest part of a context that is worth a program.
SHORTEST_PART = 256
# Parts that are merged at a time: more would not fit the registers.
MERGED = 16


# These differ from slice to slice: binaries for 1 and for multiples of 16 would be compiled amid a talk.
@triton.jit(do_not_specialize=["pages_row", "parts", "tiles"])
def _decode(
    q: tl.tensor,
    cache: tl.tensor,
    out: tl.tensor,
    sums: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    context: tl.tensor,
    begin: tl.tensor,
    pages: tl.tensor,
    visible: tl.tensor,
    positions: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    head_stride: tl.tensor,
    slot_stride: tl.tensor,
    pages_row: tl.tensor,
    part: tl.tensor,
    parts: tl.tensor,
    tiles: tl.tensor,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
) -> None:
    """Part number program_id(2) of one row's context, for one of its `tiles` of queries. begin None: from 0
    on; visible, positions None: a chain."""
    row, kv_head, number = tl.program_id(0) // tiles, tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    fresh, length = tl.load(count + row), tl.load(context + row)
    start = number * part
    if begin is not None:
        start += tl.load(begin + row)
    end = tl.where(fresh == 0, start, tl.minimum(start + part, length))
    if WINDOW:
        start = tl.maximum(start, length - fresh - WINDOW + 1)
    m = tl.program_id(0) % tiles * M + tl.arange(0, M)
    query, head = m // GROUP, kv_head * GROUP + m % GROUP
    live, token = query < fresh, tl.load(first + row) + query
    position = tl.where(live, length - fresh + query, -1)
    bits = None
    if visible is not None:
        bits = tl.load(visible + token, mask=live, other=0)
        position = tl.load(positions + token, mask=live, other=-1)
    queries = load_queries(q, token, head, live, q_token, q_head, SIZE, WIDE)
    keys_of = cache + kv_head.to(tl.int64) * head_stride
    values_of = keys_of + kv_heads.to(tl.int64) * head_stride
    pages += row * pages_row
    found, total, best = attend_part(
        queries, keys_of, values_of, pages, slot_stride, start, end, position, length - fresh, bits,
        SIZE, PAGE, WINDOW, True,
    )  # fmt: skip
    place = (token * (kv_heads * GROUP) + head) * parts + number
    store_part(out, sums, place, live, found, total, best, SIZE)


@triton.jit(do_not_specialize=["parts"])
def _merge(
    parts_out: tl.tensor,
    sums: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    CHUNK: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """One query head of one token: parts weighted by the exponentials of their log-sums, CHUNK at a time."""
    place = tl.program_id(0).to(tl.int64) * parts
    d = tl.arange(0, WIDE)
    merged = tl.zeros([WIDE], tl.float32)
    total = tl.full([], 0.0, tl.float32)
    best = tl.full([], -float("inf"), tl.float32)
    for at in range(0, parts, CHUNK):
        number = at + tl.arange(0, CHUNK)
        logs = tl.load(sums + place + number, mask=number < parts, other=-float("inf"))
        highest = tl.maximum(best, tl.max(logs, 0))
        base = tl.where(highest == -float("inf"), 0.0, highest)
        weights = tl.exp(logs - base)
        shrink = tl.exp(best - base)
        found = tl.load(
            parts_out + (place + number[:, None]) * SIZE + d[None, :],
            mask=(weights > 0.0)[:, None] & (d < SIZE)[None, :],
            other=0.0,
        )
        merged = merged * shrink + tl.sum(found * weights[:, None], 0)
        total = total * shrink + tl.sum(weights, 0)
        best = highest
    merged = merged / tl.where(total == 0.0, 1.0, total)
    tl.store(out + tl.program_id(0).to(tl.int64) * SIZE + d, merged.to(out.dtype.element_ty), mask=d < SIZE)


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
    side = min(QUERIES, power_of_2(rows.most * group, DOT_SIDE))
    tiles, wide = max(1, -(-rows.most * group // side)), power_of_2(size, DOT_SIDE)
    _decode[(rows.first.numel() * tiles, kv_heads, number)](
        q,
        cache,
        out,
        sums,
        rows.first,
        rows.count,
        rows.context,
        begin,
        rows.pages,
        rows.visible,
        rows.position,
        q.stride(0),
        q.stride(1),
        cache.stride(0),
        cache.stride(1),
        rows.pages.stride(0),
        part,
        sums.shape[2],
        tiles,
        GROUP=group,
        M=side,
        SIZE=size,
        WIDE=wide,
        PAGE=rows.page,
        WINDOW=rows.window,
        **tile_options(side, wide, cache.dtype),
    )


def merge(out: Tensor, sums: Tensor, dtype: torch.dtype) -> Tensor:
    """`[tokens, heads * head_dim]` from the parts of `decode_parts`."""
    tokens, heads, parts, size = out.shape
    merged = out.new_empty((tokens, heads * size), dtype=dtype)
    _merge[(tokens * heads,)](out, sums, merged, parts, CHUNK=MERGED, SIZE=size, WIDE=power_of_2(size))
    return merged


def paged_decode(q: Tensor, cache: Tensor, rows: PagedRows) -> Tensor:
    """`kernels.paged.paged_attention` for rows of few new tokens (up to 64). Tokens of no row get zeros."""
    tokens, heads, size = q.shape
    number, part = parts_for(rows, cache.shape[0] // 2, 0, q.device)
    out = q.new_empty((tokens, heads, number, size), dtype=torch.float32)
    sums = q.new_full((tokens, heads, number), -torch.inf, dtype=torch.float32)
    decode_parts(q, cache, rows, out, sums, part, number)
    return merge(out, sums, q.dtype)
