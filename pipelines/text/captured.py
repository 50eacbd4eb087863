"""Decode steps as CUDA graphs, one for each bucket of rows and context, captured when the model is loaded.

A step of few rows is some ten launches a layer, in an order that never changes: a graph launches them at
once.

Rules
1. What is captured is `Decoder.forward`, over buffers that never move, so that a bucket's step computes what
   the decoder computes of the same rows.
2. Rows of a bucket that the batch does not fill are empty: they attend to nothing and write to a block that
   no table holds. Nothing of an earlier batch is read.
3. Filling the buffers, the replay and the copy of the logits are launched with no yield between them:
   whatever is suspended, no other slice comes between. The executor makes its streams wait for each other.
4. Graphs share one pool of memory: they are replayed one after the other, and only the copy outlives a
   replay.
5. What fits no bucket (prompts, drafts) is computed by the decoder. So are rows with a common beginning,
   which the decoder reads once for all, where that saves much of what a step reads (`APART`).

Owner: the executor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from kernels import AttentionPlan
from kernels.paged import PagedRows
from kernels.paged_plan import PAGE, PagedPlan
from kernels.timings import chosen, in_graph
from pipelines.text.memory import KvMemory, token_bytes
from pipelines.text.model import Decoder, Packed

SHORTEST = 512
# Of what a step reads: from so much on a common beginning is read apart. Not measured.
APART = 0.25

Steps = Generator[None, None, Tensor | None]


class Graph(Protocol):
    """What `torch.cuda.CUDAGraph` is."""

    def replay(self) -> None: ...


Capture = Callable[[Callable[[], Tensor]], tuple[Graph, Tensor]]


def spare_tokens(decoder: Decoder) -> int:
    """What the pool needs beside its jobs' tokens."""
    return PAGE if _capturable(decoder) else 0


def _capturable(decoder: Decoder) -> bool:
    """On a GPU, and without a branch that the host decides: experts are chosen by content."""
    return decoder.weights.embedding.is_cuda and decoder.config.experts is None


def stepper(decoder: Decoder, memory: KvMemory, max_rows: int) -> Decoder | Captured:
    """The decoder, or the same with captured steps where the paged kernels run."""
    cache = memory.cache
    context = decoder.config.context
    if not _capturable(decoder) or not chosen("paged_decode", cache[0], context):
        return decoder
    rows = [1 << power for power in range((max_rows - 1).bit_length())] + [max_rows]
    contexts = [SHORTEST]
    while contexts[-1] < context:
        contexts.append(2 * contexts[-1])
    buckets = [(row, length) for row in reversed(rows) for length in reversed(contexts)]
    return Captured(decoder, memory, buckets, cuda_capture())


def cuda_capture() -> Capture:
    """Captures into one pool. The step runs twice first: what is compiled, loaded or measured at a first call
    must not be captured."""
    pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def capture(step: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        with in_graph():
            for _ in range(2):
                step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                logits = step()
        return graph, logits

    return capture


class Captured:
    """`buckets`: (rows, longest context), a multiple of the page; a batch takes the smallest that fits. Takes
    a block of the pool for good."""

    def __init__(
        self, decoder: Decoder, memory: KvMemory, buckets: Sequence[tuple[int, int]], capture: Capture
    ) -> None:
        self._decoder = decoder
        self._token_bytes = token_bytes(decoder.dtype, decoder.config)
        self._weight_bytes = decoder.config.parameters * decoder.dtype.itemsize
        (block,) = memory.pool.take(1)
        self._buckets = {
            (rows, context): _Bucket(decoder, memory, rows, context, block * PAGE, capture)
            for rows, context in buckets
        }

    def forward(self, packed: Packed, cache: Sequence[Tensor], every: int) -> Steps:
        """`Decoder.forward`, without a yield where a step was captured."""
        paged = self._decoded(packed)
        fitting = [key for key in self._buckets if paged is not None and _fits(paged, key)]
        if paged is None or not fitting:
            return (yield from self._decoder.forward(packed, cache, every))
        return self._buckets[min(fitting)].step(packed, paged)

    def _decoded(self, packed: Packed) -> PagedRows | None:
        """The rows, where all are of one new token that is drawn, and nothing is better read apart."""
        for plan in packed.attention.values():
            paged = plan.paged
            if paged is None or paged.prefilled is not None or paged.decoded is None:
                return None
            if paged.decoded.most != 1 or paged.decoded.visible is not None:
                return None
            if packed.last.numel() != packed.ids.numel() or self._apart(paged.decoded, paged.prefix):
                return None
            found = paged.decoded
        return found

    def _apart(self, rows: PagedRows, prefix: int) -> bool:
        spared = (rows.count.numel() - 1) * prefix * self._token_bytes
        return spared > APART * self._weight_bytes


def _fits(rows: PagedRows, bucket: tuple[int, int]) -> bool:
    return rows.count.numel() <= bucket[0] and rows.longest <= bucket[1]


class _Bucket:
    """One graph and its buffers. Rows of count 0 are empty."""

    def __init__(
        self,
        decoder: Decoder,
        memory: KvMemory,
        rows: int,
        context: int,
        spare_slot: int,
        capture: Capture,
    ) -> None:
        device = memory.cache[0].device
        self._spare_slot = spare_slot
        self._longs = torch.zeros((2, rows), dtype=torch.int64, device=device)
        self._slots = torch.full((rows,), spare_slot, device=device)
        self._counts = torch.zeros((2, -(-rows // 4) * 4), dtype=torch.int32, device=device)
        self._pages = torch.zeros((rows, -(-context // PAGE)), dtype=torch.int32, device=device)
        index = torch.arange(rows, dtype=torch.int32, device=device)
        count, contexts = self._counts[:, :rows]
        attention = {
            window: AttentionPlan(
                (),
                (),
                None,
                PagedPlan(
                    PagedRows(index, count, contexts, self._pages, PAGE, 1, context, window=window),
                    0,
                    None,
                    (),
                    {},
                ),
            )
            for window in memory.windows
        }
        packed = Packed(self._longs[0], self._longs[1], self._slots, attention, index.long())
        layers = decoder.config.layers
        self._graph, self._logits = capture(lambda: whole(decoder.forward(packed, memory.cache, layers)))

    def step(self, packed: Packed, paged: PagedRows) -> Tensor:
        """The logits, in memory of their own."""
        rows = packed.ids.numel()
        self._longs[0, :rows].copy_(packed.ids)
        self._longs[1, :rows].copy_(packed.positions)
        self._slots[:rows].copy_(packed.slots)
        self._slots[rows:].fill_(self._spare_slot)
        self._counts[0, :rows].copy_(paged.count)
        self._counts[0, rows:].zero_()
        self._counts[1, :rows].copy_(paged.context)
        self._pages[:rows, : paged.pages.shape[1]].copy_(paged.pages)
        self._graph.replay()
        return self._logits[:rows].clone()


def whole(steps: Steps) -> Tensor:
    """The logits of a forward pass without a pause."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        logits: Tensor = end.value
        return logits
