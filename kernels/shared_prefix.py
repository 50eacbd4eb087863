"""Decode attention where all rows begin with the same tokens: the common prefix is read once per batch.

The queries of all rows attend to the prefix as one matrix; each row attends to the rest of its own context;
the two are merged by the logarithm of their sums. Sources: Hydragen (Juravsky et al., 2024), RelayAttention
(Zhu et al., 2024). The specification is `kernels.paged.paged_attention`: sharing changes no result.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import DOT_SIDE, INTERPRETED, ceil_to, power_of_2, processors
from kernels.paged import PagedRows
from kernels.paged_decode import KEYS, SHORTEST_PART, attend_part, decode_parts, merge, parts_for

QUERIES = 64


@triton.jit
def _prefix(
    q: Any,
    cache: Any,
    out: Any,
    sums: Any,
    pages: Any,
    tokens: Any,
    prefix: Any,
    q_token: Any,
    q_head: Any,
    head_stride: Any,
    slot_stride: Any,
    part: Any,
    offset: Any,
    parts: Any,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:
    kv_head, number = tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    m = tl.program_id(0) * M + tl.arange(0, M)
    token = m // GROUP
    live = token < tokens
    head = kv_head * GROUP + m % GROUP
    d = tl.arange(0, WIDE)
    queries = tl.load(
        q + token[:, None] * q_token + head[:, None] * q_head + d[None, :],
        mask=live[:, None] & (d < SIZE)[None, :],
        other=0.0,
    )
    start = number * part
    found, total, best = attend_part(
        queries,
        cache,
        pages,
        kv_head,
        kv_heads,
        head_stride,
        slot_stride,
        start,
        tl.minimum(start + part, prefix),
        0,
        tl.where(live, 0, -1),
        tl.zeros([M], tl.int64),
        0,
        M,
        SIZE,
        WIDE,
        PAGE,
        BLOCK,
        False,
        False,
        False,
        WIDEN,
    )
    place = (token * (kv_heads * GROUP) + head) * parts + offset + number
    total = tl.where(total == 0.0, 1.0, total)
    tl.store(sums + place, best + tl.log(total), mask=live)
    tl.store(
        out + place[:, None] * SIZE + d[None, :],
        found / total[:, None],
        mask=live[:, None] & (d < SIZE)[None, :],
    )


def shared_prefix_decode(q: Tensor, cache: Tensor, rows: PagedRows, prefix: int) -> Tensor:
    """`paged_attention` for rows whose first `prefix` tokens lie in the same pages and are older than every
    row's new tokens. Without a window: a window makes the prefix differ from row to row."""
    assert not rows.window and prefix > 0
    tokens, heads, size = q.shape
    kv_heads = cache.shape[0] // 2
    group = heads // kv_heads
    own, own_part = parts_for(rows, kv_heads, prefix, q.device)
    tile = min(QUERIES, power_of_2(tokens * group, DOT_SIDE))
    tiles = -(-tokens * group // tile)
    shared = min(-(-prefix // SHORTEST_PART), max(1, 2 * processors(q.device) // (tiles * kv_heads)))
    part = ceil_to(-(-prefix // shared), KEYS)
    shared = -(-prefix // part)
    out = q.new_empty((tokens, heads, own + shared, size), dtype=torch.float32)
    sums = q.new_full((tokens, heads, own + shared), -torch.inf, dtype=torch.float32)
    begin = torch.full_like(rows.first, prefix)
    decode_parts(q, cache, rows, out, sums, own_part, own, begin)
    _prefix[(tiles, kv_heads, shared)](
        q,
        cache,
        out,
        sums,
        rows.pages,
        tokens,
        prefix,
        q.stride(0),
        q.stride(1),
        cache.stride(0),
        cache.stride(1),
        part,
        own,
        own + shared,
        GROUP=group,
        M=tile,
        SIZE=size,
        WIDE=power_of_2(size, DOT_SIDE),
        PAGE=rows.page,
        BLOCK=KEYS,
        WIDEN=INTERPRETED,
    )
    return merge(out, sums, q.dtype)
