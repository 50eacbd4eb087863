"""Decode attention where all rows begin with the same tokens: the common prefix is read once per batch.

The queries of all rows attend to the prefix as one matrix; each row attends to the rest of its own context;
the two are merged by the logarithm of their sums. Sources: Hydragen (Juravsky et al., 2024), RelayAttention
(Zhu et al., 2024). The specification is `kernels.paged.paged_attention`: sharing changes no result.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention_tile import KEYS, attend_part, load_queries, store_part, tile_options
from kernels.launch import DOT_SIDE, ceil_to, power_of_2, processors
from kernels.paged import PagedRows
from kernels.paged_decode import SHORTEST_PART, decode_parts, merge, parts_for

QUERIES = 64


@triton.jit(do_not_specialize=["tokens", "offset", "parts"])
def _prefix(
    q: tl.tensor,
    cache: tl.tensor,
    out: tl.tensor,
    sums: tl.tensor,
    pages: tl.tensor,
    tokens: tl.tensor,
    prefix: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    head_stride: tl.tensor,
    slot_stride: tl.tensor,
    part: tl.tensor,
    offset: tl.tensor,
    parts: tl.tensor,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
) -> None:
    """Part number program_id(2) of the prefix, for M query heads of all rows."""
    kv_head, number = tl.program_id(1), tl.program_id(2)
    kv_heads = tl.num_programs(1)
    m = tl.program_id(0) * M + tl.arange(0, M)
    token, head = m // GROUP, kv_head * GROUP + m % GROUP
    live = token < tokens
    queries = load_queries(q, token, head, live, q_token, q_head, SIZE, WIDE)
    keys_of = cache + kv_head.to(tl.int64) * head_stride
    values_of = keys_of + kv_heads.to(tl.int64) * head_stride
    start = number * part
    end = tl.minimum(start + part, prefix)
    position = tl.where(live, 0, -1)
    found, total, best = attend_part(
        queries, keys_of, values_of, pages, slot_stride, start, end, position, 0, None, SIZE, PAGE, 0, False
    )
    place = (token * (kv_heads * GROUP) + head) * parts + offset + number
    store_part(out, sums, place, live, found, total, best, SIZE)


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
    wide = power_of_2(size, DOT_SIDE)
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
        WIDE=wide,
        PAGE=rows.page,
        **tile_options(tile, wide, cache.dtype),
    )
    return merge(out, sums, q.dtype)
