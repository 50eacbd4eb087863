"""What a prompt's length does: milliseconds to its first token, and how long it holds up streams that are
running, computed at once or in chunks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from benchmarks.gpu_book import Book
from benchmarks.gpu_text import KERNELS, settled
from benchmarks.llama import PAGE, computed, packed, random_decoder
from kernels import RowSampling, draw
from kernels.timings import forced
from pipelines.text.config import ModelConfig
from pipelines.text.model import Decoder

ON = (*KERNELS, "paged_prefill", "shared_prefix")


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of the prompts, streams that run beside the longest and tokens of theirs, tokens of a chunk."""

    prompts: tuple[int, ...]
    streams: int
    context: int
    chunk: int
    rounds: int


def measure(book: Book, config: ModelConfig, device: torch.device, dtype: torch.dtype, load: Load) -> None:
    """Items: by prompt length, milliseconds to its first token, in chunks, and operations over time; by
    `chunked` and `whole`, the longest gap of the streams while the longest prompt lands, beside their usual
    gap. Plain torch and all kernels in turn."""
    streams, context, chunk, rounds = load.streams, load.context, load.chunk, load.rounds
    decoder = random_decoder(config, dtype, device)
    longest = max(load.prompts)
    cache = decoder.new_cache((streams * -(-(context + longest) // PAGE) + -(-longest // PAGE) + 1) * PAGE)
    for layer in cache:
        layer.normal_()
    bench = Bench(decoder, cache, device)

    def first_token(tokens: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, on in (("plain torch", ()), ("all kernels", ON)):
            with forced(*on):
                times = [sum(bench.chunks(tokens, chunk)) for _ in range(rounds + 1)][1:]
            found[name] = statistics.median(times)
        found["tflops"] = 2 * config.parameters * tokens / found["all kernels"] / 1e9
        return told(f"first token behind {tokens} tokens, ms", found)

    def gap(size: int) -> dict[str, float]:
        with forced(*ON):
            usual = [bench.step([1] * streams, [context] * streams) for _ in range(rounds + 1)][1:]
            landed = [max(bench.chunks(longest, size, streams, context)) for _ in range(rounds + 1)][1:]
        found = {"usual_ms": statistics.median(usual), "longest_ms": statistics.median(landed)}
        return told(f"gaps of {streams} streams, {longest} tokens in pieces of {size}, ms", found)

    for tokens in load.prompts:
        book.item(f"first token, {tokens}", lambda tokens=tokens: first_token(tokens))  # type: ignore[misc]
    for name, size in (("chunked", chunk), ("whole", longest)):
        book.item(f"gap, {name}", lambda size=size: gap(size))  # type: ignore[misc]


def told(what: str, found: dict[str, float]) -> dict[str, float]:
    """Printed too."""
    print(f"  {what}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)
    return found


class Bench:
    """Slices as the pipeline makes them: plan, forward, draw, one transfer."""

    def __init__(self, decoder: Decoder, cache: Sequence[torch.Tensor], device: torch.device) -> None:
        self._decoder, self._cache, self._device = decoder, cache, device

    def step(self, counts: Sequence[int], contexts: Sequence[int]) -> float:
        """Milliseconds of one slice."""
        began = settled(self._device)
        batch = packed(counts, contexts, self._cache, self._decoder.config.vocab)
        sampling = [RowSampling(context, seed, 0.8, 50, 0.9) for seed, context in enumerate(contexts)]
        draw(computed(self._decoder, batch, self._cache), sampling)
        return (settled(self._device) - began) * 1e3

    def chunks(self, tokens: int, size: int, streams: int = 0, context: int = 0) -> list[float]:
        """Milliseconds of each slice of a prompt, in which so many streams say a token each."""
        return [
            self.step(
                [*[1] * streams, min(size, tokens - at)],
                [*[context + at // size] * streams, min(at + size, tokens)],
            )
            for at in range(0, tokens, size)
        ]
