"""The new tokens of a slice's rows as one packed forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from kernels import Span, plan_attention, upload
from pipelines.text.kv_cache import BlockTable
from pipelines.text.memory import KvMemory
from pipelines.text.model import Packed
from pipelines.text.state import TextState


@dataclass(frozen=True, slots=True)
class Part:
    """A row's new tokens: from `start` on, in room that its table has. wanted: of how many of the last ones
    the logits are wanted."""

    table: BlockTable
    start: int
    ids: Sequence[int]
    wanted: int


def draws(state: TextState, count: int) -> bool:
    """Whether computing `count` more tokens completes a prompt that is answered, so that a token is drawn."""
    return state.answers and state.pending == count


def pack(
    states: Sequence[TextState],
    counts: Sequence[int],
    drafts: Sequence[Sequence[int]],
    memory: KvMemory,
) -> Packed:
    """`counts` known tokens of each job and its drafted ones, in room behind its committed length."""
    parts = []
    for state, count, draft in zip(states, counts, drafts, strict=True):
        reserved = memory.reserve(state.table, count + len(draft))
        assert reserved, "the plan has reserved this"
        start = state.table.length
        wanted = len(draft) + 1 if draws(state, count) else 0
        parts.append(Part(state.table, start, [*state.tokens[start : start + count], *draft], wanted))
    return pack_parts(parts, memory)


def pack_parts(parts: Sequence[Part], memory: KvMemory) -> Packed:
    """The rows of one forward pass."""
    device = memory.cache[0].device
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans: list[Span] = []
    last: list[int] = []
    for part in parts:
        end = part.start + len(part.ids)
        spans.append(Span(len(ids), len(part.ids), end, part.table.places(0, end)))
        ids += part.ids
        positions += range(part.start, end)
        slots += _numbers(part.table.places(part.start, end))
        last += range(len(ids) - part.wanted, len(ids))
    count = len(ids)
    width = count + count % 2  # each part begins at a multiple of 16 bytes, as kernels are compiled for
    filled = [0] * (width - count)
    numbers = upload([*ids, *filled, *positions, *filled, *slots, *filled, *last], torch.int64, device)
    return Packed(
        numbers[:count],
        numbers[width : width + count],
        numbers[2 * width : 2 * width + count],
        {window: plan_attention(spans, memory.cache[0], window) for window in memory.windows},
        numbers[3 * width :],
    )


def _numbers(places: slice | torch.Tensor) -> Iterable[int]:
    return range(places.start, places.stop) if isinstance(places, slice) else places.tolist()
