"""The new tokens of a slice's rows as one packed forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from kernels import Span, plan_attention
from pipelines.text.memory import KvMemory
from pipelines.text.model import Packed
from pipelines.text.state import TextState


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
    device = memory.cache[0].device
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    spans: list[Span] = []
    last: list[int] = []
    for state, count, draft in zip(states, counts, drafts, strict=True):
        reserved = memory.reserve(state.table, count + len(draft))
        assert reserved, "the plan has reserved this"
        start, known = state.table.length, state.table.length + count
        end = known + len(draft)
        spans.append(Span(len(ids), end - start, end, state.table.places(0, end)))
        ids += state.tokens[start:known]
        ids += draft
        positions += range(start, end)
        slots += _numbers(state.table.places(start, end))
        if draws(state, count):
            last += range(len(ids) - 1 - len(draft), len(ids))
    return Packed(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        torch.tensor(slots, device=device),
        {window: plan_attention(spans, memory.cache[0], window) for window in memory.windows},
        torch.tensor(last, dtype=torch.int64, device=device),
    )


def _numbers(places: slice | torch.Tensor) -> Iterable[int]:
    return range(places.start, places.stop) if isinstance(places, slice) else places.tolist()
