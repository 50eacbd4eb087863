"""KV of evicted jobs in host memory, and when that is cheaper than to compute it again.

Rules
1. What is moved is a copy of committed KV, one contiguous piece a layer (FastSwitch; Shen et al., 2024). On a
   GPU the piece is pinned and the copy is launched on the stream in use: whatever is written to the freed
   blocks later comes after it there.
2. An eviction copies at once, so it moves no more than copies within half a promised delay; what lies
   behind that is computed again.
3. Coming back is a slice of its own, with a preemption point a layer; its commit is the table's length.

Owner: the executor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.contract import Batch, Budget, Job
from pipelines.cost import UNKNOWN, CostModel
from pipelines.text.kv_cache import BLOCK, BlockTable
from pipelines.text.memory import KvMemory

EVICT, RESTORE = "evict", "restore"
GAP_SHARE = 0.5
# What a copy is taken to move in a millisecond before one was timed.
_UNTIMED_BYTES = 4e6


@dataclass(frozen=True, slots=True)
class Moved:
    """KV of a job's first `tokens` tokens in host memory: a layer's is `[2 * kv_heads, tokens, head_dim]`."""

    layers: tuple[Tensor, ...]
    tokens: int

    def cropped(self, tokens: int) -> Moved | None:
        """Of the first `tokens` only."""
        return Moved(tuple(layer[:, :tokens] for layer in self.layers), tokens) if tokens else None


@dataclass(frozen=True, slots=True)
class Restore:
    """The work of a slice that brings so many tokens back."""

    tokens: int


class Swap:
    """Moves one model's KV out of its pool and back. again_ms: how long so many tokens, computed from the
    first on, take; 0 before any were."""

    def __init__(
        self, name: str, memory: KvMemory, cost: CostModel, again_ms: Callable[[int, Budget], float]
    ) -> None:
        self._name = name
        self._memory = memory
        self._cost = cost
        self._again_ms = again_ms
        first = memory.cache[0]
        self._pinned = first.is_cuda
        heads, _, size = first.shape
        self._token_bytes = len(memory.cache) * heads * size * first.itemsize
        self._kept: dict[int, int] = {}
        self._room = memory.pool.size * BLOCK

    def account(self, job_id: int, moved: Moved | None) -> None:
        """What the job has in host memory now, which takes as much as the pool has."""
        tokens = moved.tokens if moved is not None else 0
        self._room += self._kept.pop(job_id, 0) - tokens
        if tokens:
            self._kept[job_id] = tokens

    def worth(self, length: int, budget: Budget) -> int:
        """How many of a table's first tokens are cheaper moved than computed again, and have room there."""
        tokens = min(length, self._room)
        while tokens >= BLOCK and self._ms(EVICT, tokens) > GAP_SHARE * budget.gap_ms:
            tokens //= 2
        if tokens < BLOCK:
            return 0
        moved_ms = self._ms(EVICT, tokens) + self._ms(RESTORE, tokens)
        return tokens if moved_ms < self._again_ms(tokens, budget) else 0

    def out(self, table: BlockTable, tokens: int) -> Moved | None:
        """The copy; None where the host has no memory for it, so that it is computed again."""
        places = self._places(table, tokens)
        try:
            return Moved(tuple(self._taken(layer[:, places]) for layer in self._memory.cache), tokens)
        except (MemoryError, RuntimeError):
            return None

    def back(self, table: BlockTable, moved: Moved) -> Iterator[None]:
        """Into room that is reserved; the caller commits."""
        places = self._places(table, moved.tokens)
        for layer, kept in zip(self._memory.cache, moved.layers, strict=True):
            layer[:, places] = kept.to(layer.device, non_blocking=True)
            yield

    def batch(self, rows: tuple[Job, ...], tokens: int) -> Batch:
        """The slice that brings them back."""
        return Batch(self._name, RESTORE, rows, float(tokens), Restore(tokens))

    def _places(self, table: BlockTable, tokens: int) -> slice | Tensor:
        places = table.places(0, tokens)
        return places if isinstance(places, slice) else places.to(self._memory.cache[0].device)

    def _taken(self, part: Tensor) -> Tensor:
        kept = torch.empty(part.shape, dtype=part.dtype, pin_memory=self._pinned)
        return kept.copy_(part, non_blocking=True)

    def _ms(self, kind: str, tokens: int) -> float:
        found = self._cost.estimate(Batch(self._name, kind, (), float(tokens)))
        return tokens * self._token_bytes / _UNTIMED_BYTES if found is UNKNOWN else found.median_ms
