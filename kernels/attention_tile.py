"""A tile of queries over a stretch of one row's paged context: what the three attention kernels share.

Layouts: see `kernels.paged`. Scores and sums are fp32 and kept running (Milakov, Gimelshein, 2018), so that
every key and value is read once. A query of position -1 sees nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.launch import dot

# Keys read at a time.
KEYS = 64
_KEYS = tl.constexpr(KEYS)
# Bytes of a tile's queries and keys that four warps multiply without spilling, and of keys and values that
# are read ahead at most: of compute capability 9.0, by `tests/kernels/test_compiled.py`.
_FOUR_WARPS = 40 << 10
_AHEAD = 96 << 10


def tile_options(side: int, wide: int, dtype: torch.dtype) -> dict[str, int]:
    """How a tile of `side` queries of `wide` numbers is launched."""
    few = side <= KEYS and (side + KEYS) * wide * dtype.itemsize <= _FOUR_WARPS
    ahead = 2 * KEYS * wide * dtype.itemsize <= _AHEAD
    return {"num_warps": 4 if few else 8, "num_stages": 3 if ahead else 1}


@triton.jit
def load_queries(
    q: tl.tensor,
    token: tl.tensor,
    head: tl.tensor,
    live: tl.tensor,
    q_token: tl.tensor,
    q_head: tl.tensor,
    SIZE: tl.constexpr,
    WIDE: tl.constexpr,
) -> tl.tensor:
    """`[queries, WIDE]`, 0 where not live and behind SIZE."""
    d = tl.arange(0, WIDE)
    place = q + token.to(tl.int64)[:, None] * q_token + head[:, None] * q_head + d[None, :]
    return tl.load(place, mask=live[:, None] & (d < SIZE)[None, :], other=0.0)


@triton.jit
def _seen(
    key: tl.tensor,
    end: tl.tensor,
    position: tl.tensor,
    fresh_from: tl.tensor,
    bits: tl.tensor,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
) -> tl.tensor:
    """`[queries, keys]`; bits: see `kernels.paged.PagedRows.visible`, None without trees."""
    seen = (key < end)[None, :] & (position[:, None] >= 0)
    if bits is not None:
        fresh = key - fresh_from
        bit = (bits[:, None] >> tl.maximum(fresh, 0)[None, :].to(tl.int64)) & 1
        seen = seen & ((fresh < 0)[None, :] | (bit == 1))
        if WINDOW:
            seen = seen & ((fresh >= 0)[None, :] | (key[None, :] > position[:, None] - WINDOW))
    else:
        if CAUSAL:
            seen = seen & (key[None, :] <= position[:, None])
        if WINDOW:
            seen = seen & (key[None, :] > position[:, None] - WINDOW)
    return seen


@triton.jit
def attend_part(
    queries: tl.tensor,
    keys_of: tl.tensor,
    values_of: tl.tensor,
    pages: tl.tensor,
    slot_stride: tl.tensor,
    start: tl.tensor,
    end: tl.tensor,
    position: tl.tensor,
    fresh_from: tl.tensor,
    bits: tl.tensor,
    SIZE: tl.constexpr,
    PAGE: tl.constexpr,
    WINDOW: tl.constexpr,
    CAUSAL: tl.constexpr,
) -> tl.tensor:
    """Attention of `queries` `[M, WIDE]` over positions start..end-1 of one key-value head: (weighted values
    `[M, WIDE]` fp32, not divided; sums `[M]`; greatest scores `[M]`, -inf where nothing is seen)."""
    M: tl.constexpr = queries.shape[0]
    WIDE: tl.constexpr = queries.shape[1]
    d = tl.arange(0, WIDE)
    inside = d < SIZE
    best = tl.full([M], -float("inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    found = tl.zeros([M, WIDE], tl.float32)
    for at in range(start, end, _KEYS):
        key = at + tl.arange(0, _KEYS)
        held = key < end
        page = tl.load(pages + key // PAGE, mask=held, other=0).to(tl.int64)
        slot = (page * PAGE + key % PAGE) * slot_stride
        keys = tl.load(keys_of + slot[None, :] + d[:, None], mask=held[None, :] & inside[:, None], other=0.0)
        seen = _seen(key, end, position, fresh_from, bits, WINDOW, CAUSAL)
        scores = tl.where(seen, dot(queries, keys), -float("inf"))
        highest = tl.maximum(best, tl.max(scores, 1))
        base = tl.where(highest == -float("inf"), 0.0, highest)
        weights = tl.exp(scores - base[:, None])
        shrink = tl.exp(best - base)
        values = tl.load(
            values_of + slot[:, None] + d[None, :], mask=held[:, None] & inside[None, :], other=0.0
        )
        total = total * shrink + tl.sum(weights, 1)
        found = found * shrink[:, None] + dot(weights.to(values.dtype), values)
        best = highest
    return found, total, best


@triton.jit
def store_part(
    out: tl.tensor,
    sums: tl.tensor,
    place: tl.tensor,
    live: tl.tensor,
    found: tl.tensor,
    total: tl.tensor,
    best: tl.tensor,
    SIZE: tl.constexpr,
) -> None:
    """What `attend_part` found, divided, and the logarithm of its sums; place: index of (token, head,
    part)."""
    d = tl.arange(0, found.shape[1])
    place = place.to(tl.int64)
    total = tl.where(total == 0.0, 1.0, total)
    tl.store(sums + place, best + tl.log(total), mask=live)
    tl.store(
        out + place[:, None] * SIZE + d[None, :],
        (found / total[:, None]).to(out.dtype.element_ty),
        mask=live[:, None] & (d < SIZE)[None, :],
    )
