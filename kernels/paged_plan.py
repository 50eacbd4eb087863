"""How a slice's rows attend through the paged kernels: decided once a slice, used in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from kernels.paged import PagedRows, paged_rows
from kernels.timings import chosen

Pages = npt.NDArray[np.int32]

# Slots of a page, as the cache's owner hands them out.
PAGE = 16
# Rows of at most so many new tokens are decoded, longer ones are prefilled.
DECODED = 16
# Bytes of a head that the tiles have room for in shared memory.
WIDEST = 512
# A common beginning is read apart from this many tokens on.
SHARED = 256


class Row(Protocol):
    """What is needed of `kernels.reference.Span`."""

    @property
    def first(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def slots(self) -> slice | Tensor: ...


@dataclass(frozen=True, slots=True)
class PagedPlan:
    """`decoded` rows begin with `prefix` common tokens (0: read as they are); None for no such rows, as with
    `prefilled` ones, whose counts of new tokens are `counts`. `tiles`: what `kernels.paged_prefill.tiles_of`
    made for a size of the query heads' groups, filled by the slice's first layer."""

    decoded: PagedRows | None
    prefix: int
    prefilled: PagedRows | None
    counts: tuple[int, ...]
    tiles: dict[int, tuple[Tensor, int]]


def plan_paged(spans: Sequence[Row], cache: Tensor, window: int) -> PagedPlan | None:
    """None where a kernel that is needed is off, a head is too wide, or a context does not fill pages from a
    page's start on."""
    if cache.shape[2] * cache.dtype.itemsize > WIDEST:
        return None
    short = [span for span in spans if span.count <= DECODED]
    long = [span for span in spans if span.count > DECODED]
    if short and not chosen("paged_decode", cache, sum(span.context for span in short)):
        return None
    if long and not chosen("paged_prefill", cache, sum(span.count for span in long)):
        return None
    pages: dict[int, Pages] = {}
    for span in spans:
        found = _pages(span.slots)
        if found is None:
            return None
        pages[span.first] = found
    prefix = 0 if window else _common([pages[span.first] for span in short])
    if prefix and not chosen("shared_prefix", cache, prefix):
        prefix = 0
    return PagedPlan(
        _rows(short, pages, cache, window) if short else None,
        prefix,
        _rows(long, pages, cache, window) if long else None,
        tuple(span.count for span in long),
        {},
    )


def attend_paged(q: Tensor, cache: Tensor, plan: PagedPlan) -> Tensor:
    """`kernels.attend` by the Triton kernels. Raises: ImportError where Triton is absent."""
    from kernels.paged_decode import paged_decode
    from kernels.paged_prefill import paged_prefill, tiles_of
    from kernels.shared_prefix import shared_prefix_decode

    out = None
    if plan.decoded is not None and plan.prefix:
        out = shared_prefix_decode(q, cache, plan.decoded, plan.prefix)
    elif plan.decoded is not None:
        out = paged_decode(q, cache, plan.decoded)
    if plan.prefilled is None:
        assert out is not None, "a plan has rows"
        return out
    group = q.shape[1] // (cache.shape[0] // 2)
    if group not in plan.tiles:
        plan.tiles[group] = tiles_of(plan.counts, group, q.device)
    return paged_prefill(q, cache, plan.prefilled, *plan.tiles[group], out)


def _rows(spans: Sequence[Row], pages: dict[int, Pages], cache: Tensor, window: int) -> PagedRows:
    return paged_rows(
        [span.first for span in spans],
        [span.count for span in spans],
        [span.context for span in spans],
        [pages[span.first] for span in spans],
        PAGE,
        cache.device,
        window=window,
    )


def _pages(slots: slice | Tensor) -> Pages | None:
    """The pages of a row's context, whose slots are on the host."""
    if isinstance(slots, slice):
        first, behind = slots.start // PAGE, -(-slots.stop // PAGE)
        return None if slots.start % PAGE else np.arange(first, behind, dtype=np.int32)
    starts = slots[::PAGE].numpy()
    return None if (starts % PAGE).any() else (starts // PAGE).astype(np.int32)


def _common(rows: Sequence[Pages]) -> int:
    """Tokens in the pages that all rows begin with, the last page of each left out; 0 where too few."""
    if len(rows) < 2:
        return 0
    pages = min(len(row) for row in rows) - 1
    for row in rows[1:]:
        if pages * PAGE < SHARED:
            return 0
        apart = np.flatnonzero(rows[0][:pages] != row[:pages])
        pages = int(apart[0]) if apart.size else pages
    return pages * PAGE if pages * PAGE >= SHARED else 0
