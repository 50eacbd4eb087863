"""Attention of prompt chunks over the paged KV cache: rows of any number of new tokens, packed, no padding.

One program takes a tile of one row's new tokens for one key-value head, with the query heads of its group
beside each other, and walks over the tokens that the tile sees. Sources: FlashAttention-2 (Dao, 2023);
chunked prefill (Agrawal et al., Sarathi, 2023); packed lengths (Zhao et al., Prepacking, 2024).

Layouts and specification as in `kernels.paged`. Trees (`visible`) are for `paged_decode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import DOT_SIDE, INTERPRETED, power_of_2
from kernels.paged import PagedRows
from kernels.paged_decode import attend_part

# Query heads times tokens in a tile, and keys read at a time.
QUERIES = 64
KEYS = 64


@triton.jit
def _prefill(
    q: Any,
    cache: Any,
    out: Any,
    tiles: Any,
    first: Any,
    count: Any,
    context: Any,
    pages: Any,
    q_token: Any,
    q_head: Any,
    head_stride: Any,
    slot_stride: Any,
    pages_row: Any,
    window: Any,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDEN: tl.constexpr,
) -> None:
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    kv_heads = tl.num_programs(1)
    row = tl.load(tiles + 2 * tile)
    begin = tl.load(tiles + 2 * tile + 1)
    fresh = tl.load(count + row)
    earlier = tl.load(context + row) - fresh
    m = tl.arange(0, M)
    query = begin + m // GROUP
    live = query < tl.minimum(begin + M // GROUP, fresh)
    token = tl.load(first + row) + query
    head = kv_head * GROUP + m % GROUP
    d = tl.arange(0, WIDE)
    queries = tl.load(
        q + token[:, None] * q_token + head[:, None] * q_head + d[None, :],
        mask=live[:, None] & (d < SIZE)[None, :],
        other=0.0,
    )
    start = 0
    if WINDOW:
        start = tl.maximum(0, earlier + begin - window + 1)
    last = tl.minimum(begin + M // GROUP, fresh)
    found, total, _ = attend_part(
        queries,
        cache,
        pages + row * pages_row,
        kv_head,
        kv_heads,
        head_stride,
        slot_stride,
        start,
        earlier + last,
        earlier,
        tl.where(live, earlier + query, -1),
        tl.zeros([M], tl.int64),
        window,
        M,
        SIZE,
        WIDE,
        PAGE,
        BLOCK,
        False,
        WINDOW,
        True,
        WIDEN,
    )
    place = token * (kv_heads * GROUP) + head
    tl.store(
        out + place[:, None] * SIZE + d[None, :],
        (found / tl.where(total == 0.0, 1.0, total)[:, None]).to(out.dtype.element_ty),
        mask=live[:, None] & (d < SIZE)[None, :],
    )


def tiles_of(counts: Sequence[int], group: int, device: torch.device) -> tuple[Tensor, int]:
    """(int32 `[tiles, 2]`: row and first new token of each tile; query rows of a tile). A tile holds whole
    groups of query heads."""
    side = max(
        power_of_2(group, DOT_SIDE), min(QUERIES, power_of_2(max(counts, default=1) * group, DOT_SIDE))
    )
    step = side // group
    tiles = [(row, begin) for row, count in enumerate(counts) for begin in range(0, count, step)]
    return torch.tensor(tiles, dtype=torch.int32).view(-1, 2).to(device), side


def paged_prefill(
    q: Tensor, cache: Tensor, rows: PagedRows, tiles: Tensor, side: int, out: Tensor | None = None
) -> Tensor:
    """`kernels.paged.paged_attention`; `tiles` and `side` of `tiles_of`, once a slice. Written
    into `out` where given; tokens of no row are left as they are."""
    assert rows.visible is None
    tokens, heads, size = q.shape
    kv_heads = cache.shape[0] // 2
    group = heads // kv_heads
    if out is None:
        out = q.new_empty(tokens, heads * size)
    if not tiles.shape[0]:
        return out
    _prefill[(tiles.shape[0], kv_heads)](
        q,
        cache,
        out,
        tiles,
        rows.first,
        rows.count,
        rows.context,
        rows.pages,
        q.stride(0),
        q.stride(1),
        cache.stride(0),
        cache.stride(1),
        rows.pages.stride(0),
        rows.window,
        GROUP=group,
        M=side,
        SIZE=size,
        WIDE=power_of_2(size, DOT_SIDE),
        PAGE=rows.page,
        BLOCK=KEYS,
        WINDOW=rows.window > 0,
        WIDEN=INTERPRETED,
    )
    return out
