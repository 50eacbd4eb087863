"""Captured decode steps against the same steps launched one by one: random weights, random rows that come and
go. Nothing is trained and nothing is timed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_book import Book
from benchmarks.llama import PAGE, computed, packed, random_decoder
from kernels.timings import forced
from pipelines.text.captured import Capture, Captured, Graph, cuda_capture, whole
from pipelines.text.config import ModelConfig
from pipelines.text.memory import KvMemory

KERNELS = (
    "paged_decode", "paged_prefill", "shared_prefix",
    "rms_norm", "add_rms_norm", "rope_append", "gate_multiply",
)  # fmt: skip
# Root mean square of a row's differences, of logits and KV of standard deviation about 1: a bucket splits
# contexts and products elsewhere. A row that reads what it should not is off by about 1.
NEAR = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 1e-1}


class Again:
    """Where there is no GPU: the call itself, made again over the same buffers, into the logits that it was
    captured with."""

    def __init__(self, step: Callable[[], Tensor]) -> None:
        self._step = step
        self.logits = step()
        self.replays = 0

    def replay(self) -> None:
        self.logits.copy_(self._step())
        self.replays += 1


def called_again(step: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
    """`Capture` without a GPU."""
    made = Again(step)
    return made, made.logits


def measure(
    book: Book,
    config: ModelConfig,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    buckets: Sequence[tuple[int, int]],
    steps: int,
) -> None:
    """The largest bucket holds all rows. Items, by dtype: {"equal": bool, "replays", "difference" of logits,
    "kv" of what was written, "bits": whether a replay of the same rows gives the same bits}."""
    capture = cuda_capture() if device.type == "cuda" else called_again
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        book.item(name, lambda dtype=dtype: compared(config, device, dtype, buckets, steps, capture))  # type: ignore[misc]
        print(f"  {name}: {book.items[name]}", flush=True)


def compared(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    buckets: Sequence[tuple[int, int]],
    steps: int,
    capture: Capture,
) -> dict[str, Any]:
    """One decoder, two equal caches: the same rows through graphs over one, launched over the other."""
    decoder = random_decoder(config, dtype, device)
    most, longest = max(rows for rows, _ in buckets), max(context for _, context in buckets)
    slots = (most * -(-longest // PAGE) + 2) * PAGE
    cache = tuple(layer.normal_() for layer in decoder.new_cache(slots))
    plain = tuple(layer.clone() for layer in cache)
    memory = KvMemory(cache, frozenset({0}), prefix_reuse=False)
    replays, difference, bits = 0, 0.0, True

    def counting(step: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        graph, logits = capture(step)
        return Counted(graph, replayed), logits

    def replayed() -> None:
        nonlocal replays
        replays += 1

    rng = random.Random(0)
    with forced(*KERNELS):
        graphs = Captured(decoder, memory, buckets, counting)
        (spare,) = (block for block in range(slots // PAGE) if memory.pool.count(block))
        for layer, copy in zip(cache, plain, strict=True):
            copy.copy_(layer)  # capturing has written to the spare block
        for _ in range(steps):
            contexts = [rng.randint(1, longest) for _ in range(rng.randint(1, most))]
            batch = packed([1] * len(contexts), contexts, cache, config.vocab)
            expected = computed(decoder, batch, plain)
            found = whole(graphs.forward(batch, cache, config.layers))
            difference = max(difference, apart(found, expected))
            bits &= torch.equal(found, whole(graphs.forward(batch, cache, config.layers)))
    owned = torch.ones(slots, dtype=torch.bool, device=device)
    owned[spare * PAGE : (spare + 1) * PAGE] = False
    kv = max(
        apart(ours[:, owned].transpose(0, 1), theirs[:, owned].transpose(0, 1))
        for ours, theirs in zip(cache, plain, strict=True)
    )
    equal = difference <= NEAR[dtype] and kv <= NEAR[dtype] and bits and replays == 2 * steps
    return {"equal": equal, "replays": replays, "difference": difference, "kv": kv, "bits": bits}


def apart(found: Tensor, expected: Tensor) -> float:
    """The greatest root mean square of a row's differences."""
    return float((found.float() - expected.float()).flatten(1).square().mean(1).sqrt().max())


class Counted:
    """A graph that says when it is replayed."""

    def __init__(self, graph: Graph, told: Callable[[], None]) -> None:
        self._graph = graph
        self._told = told

    def replay(self) -> None:
        self._graph.replay()
        self._told()
