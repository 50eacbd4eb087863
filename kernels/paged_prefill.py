"""Attention of prompt chunks over the paged KV cache: rows of any number of new tokens, packed, no padding.

One program takes a tile of one row's new tokens for one key-value head, with the query heads of its group
beside each other, and walks over the tokens that the tile sees. Sources: FlashAttention-2 (Dao, 2023);
chunked prefill (Agrawal et al., Sarathi, 2023); packed lengths (Zhao et al., Prepacking, 2024).

Layouts and specification as in `kernels.paged`. Trees (`visible`) are for `paged_decode`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention_tile import attend_part, load_queries, tile_options
from kernels.launch import DOT_SIDE, power_of_2
from kernels.paged import PagedRows
from kernels.upload import upload

# Query heads times tokens in a tile.
QUERIES = 64


@triton.jit(do_not_specialize=["pages_row"])
def _prefill(
    q: tl.tensor,
    cache: tl.tensor,
    out: tl.tensor,
    tiles: tl.tensor,
    first: tl.tensor,
    count: tl.tensor,
    context: tl.tensor,
    pages: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    head_stride: tl.tensor,
    slot_stride: tl.tensor,
    pages_row: tl.tensor,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
) -> None:
    tile, kv_head = tl.program_id(0), tl.program_id(1)
    kv_heads = tl.num_programs(1)
    row, begin = tl.load(tiles + 2 * tile), tl.load(tiles + 2 * tile + 1)
    fresh = tl.load(count + row)
    earlier = tl.load(context + row) - fresh
    last = tl.minimum(begin + M // GROUP, fresh)
    m = tl.arange(0, M)
    query, head = begin + m // GROUP, kv_head * GROUP + m % GROUP
    live, token = query < last, tl.load(first + row) + query
    position = tl.where(live, earlier + query, -1)
    queries = load_queries(q, token, head, live, q_token, q_head, SIZE, WIDE)
    keys_of = cache + kv_head.to(tl.int64) * head_stride
    values_of = keys_of + kv_heads.to(tl.int64) * head_stride
    pages += row * pages_row
    start = 0
    if WINDOW:
        start = tl.maximum(0, earlier + begin - WINDOW + 1)
    found, total, _ = attend_part(
        queries, keys_of, values_of, pages, slot_stride, start, earlier + last, position, earlier, None,
        SIZE, PAGE, WINDOW, True,
    )  # fmt: skip
    place = token.to(tl.int64) * (kv_heads * GROUP) + head
    d = tl.arange(0, WIDE)
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
    return upload(tiles, torch.int32, device).view(-1, 2), side


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
    wide = power_of_2(size, DOT_SIDE)
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
        GROUP=group,
        M=side,
        SIZE=size,
        WIDE=wide,
        PAGE=rows.page,
        WINDOW=rows.window,
        **tile_options(side, wide, cache.dtype),
    )
    return out
