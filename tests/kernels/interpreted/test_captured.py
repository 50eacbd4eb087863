"""Captured decode steps: whatever came before, what the decoder computes; here the capture is a call that is
made again over the same buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_graphs import Again, called_again, compared
from benchmarks.kernel_checks import poisoned_memory
from benchmarks.llama import PAGE, TINY, computed, packed, random_decoder
from kernels.timings import forced
from pipelines.text.captured import Captured, Graph, stepper, whole
from pipelines.text.config import ModelConfig
from pipelines.text.memory import KvMemory

SLOTS = 1200
PAGED = ("paged_decode", "paged_prefill", "shared_prefix", "add_rms_norm", "gate_multiply")


class Bench:
    """A decoder with a random past, and the same one captured over a past of its own."""

    def __init__(self, *buckets: tuple[int, int], config: ModelConfig = TINY) -> None:
        self.decoder = random_decoder(config, torch.float32, torch.device("cpu"))
        self.memory = KvMemory(self.space(), frozenset({0}), prefix_reuse=False)
        self.plain = tuple(layer.clone() for layer in self.memory.cache)
        self.made: list[Again] = []
        self.captured = Captured(self.decoder, self.memory, buckets, self.capture)

    def space(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randn(each.shape, generator=generator) for each in self.decoder.new_cache(SLOTS))

    def capture(self, step: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        self.made.append(Again(step))
        return self.made[-1], self.made[-1].logits

    @property
    def replays(self) -> list[int]:
        return [each.replays for each in self.made]

    def check(self, counts: list[int], contexts: list[int], *, common: int = 0) -> None:
        """Equal logits, and equal KV wherever a table may be."""
        batch = packed(counts, contexts, self.memory.cache, TINY.vocab, common=common)
        expected = computed(self.decoder, batch, self.plain)
        found = whole(self.captured.forward(batch, self.memory.cache, 1))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        spare = next(block for block in range(SLOTS // PAGE) if self.memory.pool.count(block))
        owned = torch.ones(SLOTS, dtype=torch.bool)
        owned[spare * PAGE : (spare + 1) * PAGE] = False
        for ours, theirs in zip(self.memory.cache, self.plain, strict=True):
            torch.testing.assert_close(ours[:, owned], theirs[:, owned], atol=1e-5, rtol=1e-5)


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory(), forced(*PAGED):
        yield


def test_rows_come_and_go() -> None:
    """The smallest bucket that fits; long rows before short ones, many before few."""
    bench = Bench((4, 32), (2, 32), (4, 64))
    for contexts in ([20, 17, 32], [1], [7, 30], [64, 3, 2, 1]):
        bench.check([1] * len(contexts), contexts)
    assert bench.replays == [1, 2, 1]


@pytest.mark.parametrize(
    ("counts", "contexts", "common"),
    [
        ([1, 1, 1, 1, 1], [9, 9, 9, 9, 9], 0),
        ([1], [129], 0),
        ([20], [20], 0),
        ([1, 3], [9, 9], 0),
        ([1, 1], [273, 280], 256),
    ],
)
def test_what_no_bucket_fits_is_computed_by_the_decoder(
    counts: list[int], contexts: list[int], common: int
) -> None:
    bench = Bench((4, 128))
    bench.check(counts, contexts, common=common)
    assert bench.replays == [0]


def test_a_common_beginning_that_saves_little_is_read_by_the_graph() -> None:
    """Beside a large vocabulary a few rows' KV is nothing."""
    bench = Bench((4, 320), config=replace(TINY, vocab=20_000))
    bench.check([1, 1], [273, 280], common=256)
    assert bench.replays == [1]


def test_what_the_gpu_is_asked_to_prove() -> None:
    found = compared(TINY, torch.device("cpu"), torch.float32, ((2, 32),), 2, called_again)
    assert found["equal"], found


def test_rows_without_a_draw_are_computed_by_the_decoder() -> None:
    bench = Bench((4, 128))
    batch = packed([1, 1], [9, 12], bench.memory.cache, TINY.vocab)
    some = type(batch)(batch.ids, batch.positions, batch.slots, batch.attention, batch.last[:1])
    found = whole(bench.captured.forward(some, bench.memory.cache, 1))
    assert found.shape[0] == 1
    assert bench.replays == [0]


def test_without_a_gpu_nothing_is_captured() -> None:
    decoder = random_decoder(TINY, torch.float32, torch.device("cpu"))
    memory = KvMemory(decoder.new_cache(64), frozenset({0}), prefix_reuse=False)
    assert stepper(decoder, memory, 32) is decoder
    assert memory.pool.free == memory.pool.size
