"""Which tokens of the paged KV cache each row of a batch attends to, as kernels read it.

The cache of one layer is `[2 * kv_heads, slots, head_dim]`, keys first; a page is `page` consecutive slots,
and position n of a row lies in slot `pages[n // page] * page + n % page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kernels.upload import moved, upload


@dataclass(frozen=True, slots=True)
class PagedRows:
    """Rows of a packed batch. On the device, int32 `[rows]`: `first` (packed index of the first new token),
    `count` (new tokens; 0 for an empty row), `context` (tokens in all, the new ones last). `pages` int32
    `[rows, most pages]`, of `page` slots each.

    `visible`: None, or int64 `[tokens]`: bit j of a query says whether it sees the row's j-th new token (a
    tree of at most 64 drafts); all earlier tokens are seen. Without it a query sees all up to itself.
    `position` int32 `[tokens]`, needed with `visible` and a window: where each query stands.
    `window`: a query sees that many tokens, itself included; 0 for all.

    For the launch alone: `most` new tokens of a row, the `longest` context.
    """

    first: Tensor
    count: Tensor
    context: Tensor
    pages: Tensor
    page: int
    most: int
    longest: int
    visible: Tensor | None = None
    position: Tensor | None = None
    window: int = 0


def paged_rows(
    firsts: Sequence[int],
    counts: Sequence[int],
    contexts: Sequence[int],
    pages: Sequence[Sequence[int] | npt.NDArray[np.int32]],
    page: int,
    device: torch.device,
    *,
    window: int = 0,
    visible: Sequence[int] | None = None,
) -> PagedRows:
    """From numbers on the host, in one transfer. `visible`: one whole number a query, in the order of the
    rows (which then lie packed without gaps), see `PagedRows`."""
    number, width = len(counts), max((len(row) for row in pages), default=0) or 1
    aligned = -(-number // 4) * 4  # each part begins at a multiple of 16 bytes, as kernels are compiled for
    numbers = np.zeros(3 * aligned + number * width, dtype=np.int32)
    numbers[: 3 * aligned].reshape(3, aligned)[:, :number] = (firsts, counts, contexts)
    for table, row in zip(numbers[3 * aligned :].reshape(number, width), pages, strict=True):
        table[: len(row)] = row
    flat = moved(torch.from_numpy(numbers), device)
    first, count, context = flat[: 3 * aligned].view(3, -1)[:, :number]
    position = None
    if visible is not None:
        assert max(counts) <= 64, "at most 64 new tokens a row have bits"
        depths = [bin(bits & (2**64 - 1)).count("1") - 1 for bits in visible]
        starts = [contexts[row] - counts[row] for row in range(len(counts)) for _ in range(counts[row])]
        places = [start + depth for start, depth in zip(starts, depths, strict=True)]
        position = upload(places, torch.int32, device)
    return PagedRows(
        first,
        count,
        context,
        flat[3 * aligned :].view(number, width),
        page,
        max(counts, default=0),
        max(contexts, default=0),
        None if visible is None else upload([_signed(bits) for bits in visible], torch.int64, device),
        position,
        window,
    )


def _signed(bits: int) -> int:
    """64 bits as the whole number that int64 holds them in."""
    return bits - 2**64 if bits >= 2**63 else bits


def paged_attention(q: Tensor, cache: Tensor, rows: PagedRows) -> Tensor:
    """The specification: one softmax a row, nothing shared. Queries `[tokens, heads, head_dim]` already carry
    the scale of the scores; returns `[tokens, heads * head_dim]` in their dtype, computed in fp32."""
    kv_heads = cache.shape[0] // 2
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for row, (first, count, context) in enumerate(_numbers(rows)):
        if not count:
            continue
        places = torch.arange(context, device=q.device)
        slots = rows.pages[row].long()[places // rows.page] * rows.page + places % rows.page
        keys, values = cache[:, slots].float().chunk(2)
        queries = q[first : first + count].float().view(count, kv_heads, -1, q.shape[2])
        scores = torch.einsum("qhgd,hkd->hgqk", queries, keys)
        scores = scores.masked_fill(~_seen(rows, first, count, context), -torch.inf)
        attended = torch.einsum("hgqk,hkd->qhgd", scores.softmax(-1), values)
        out[first : first + count] = attended.reshape(count, -1, q.shape[2]).to(q.dtype)
    return out.view(q.shape[0], -1)


def _numbers(rows: PagedRows) -> list[tuple[int, int, int]]:
    columns = torch.stack((rows.first, rows.count, rows.context), dim=1).tolist()
    return [(first, count, context) for first, count, context in columns]


def _seen(rows: PagedRows, first: int, count: int, context: int) -> Tensor:
    """`[count, context]`: which tokens each new one sees."""
    device = rows.first.device
    key = torch.arange(context, device=device)
    own = torch.arange(context - count, context, device=device).unsqueeze(1)
    seen = key <= own
    if rows.visible is not None and rows.position is not None:
        bits = rows.visible[first : first + count].unsqueeze(1)
        fresh = key - (context - count)
        seen = (fresh < 0) | (((bits >> fresh.clamp(min=0)) & 1) == 1)
        own = rows.position[first : first + count].unsqueeze(1)
        if rows.window:
            seen &= (fresh >= 0) | (key > own - rows.window)
    elif rows.window:
        seen &= key > own - rows.window
    return seen
