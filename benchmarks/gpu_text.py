"""Text decoding at a model's shape beside the memory's bandwidth, with all kernels, without, and without
each."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks.gpu_book import Book
from benchmarks.gpu_graphs import apart
from benchmarks.llama import PAGE, computed, packed, random_decoder
from kernels import RowSampling, draw, upload
from kernels.timings import forced
from pipelines.text.captured import Captured, cuda_capture, whole
from pipelines.text.config import ModelConfig
from pipelines.text.memory import KvMemory
from pipelines.text.model import Decoder

STEPS = 20
# Drafts of a row in one check, and how often one is right.
DRAFTS = (2, 4, 6, 8)
ACCEPTED = 0.8
KERNELS = ("paged_decode", "rms_norm", "add_rms_norm", "rope_append", "gate_multiply", "perturbed_argmax")


def measure(
    book: Book,
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    batches: Sequence[tuple[int, int]],
    bytes_per_s: float,
    steps: int = STEPS,
    warm: int = 1,
) -> None:
    """Items, by (rows, context): milliseconds of a decode step, sampling included; `bound_ms`: reading
    weights and KV once at `bytes_per_s`."""
    decoder = random_decoder(config, dtype, device)
    arms = {"plain torch": (), "all kernels": KERNELS}
    arms |= {f"without {name}": tuple(k for k in KERNELS if k != name) for name in KERNELS}

    def one(rows: int, context: int) -> dict[str, float]:
        cache = decoder.new_cache((rows * -(-context // PAGE) + 1) * PAGE)  # a page for captured steps
        for layer in cache:
            layer.normal_()
        kv = 2 * rows * context * config.kv_heads * config.head_dim * config.layers * dtype.itemsize
        calls = {name: one_step(decoder, cache, rows, context, on) for name, on in arms.items()}
        row = {"bound_ms": (weight_bytes(decoder) + kv) / bytes_per_s * 1e3}
        row |= alternated(calls, device, steps, warm)
        if device.type == "cuda":
            with forced(*KERNELS):
                row |= captured(decoder, cache, rows, context, steps)
        times = ", ".join(f"{name} {value:.2f}" for name, value in row.items())
        print(f"  {rows} rows, {context} tokens, ms a step: {times}", flush=True)
        return row

    for rows, context in batches:
        book.item(f"{rows} rows, {context} tokens", lambda a=rows, b=context: one(a, b))  # type: ignore[misc]
    rows, context = batches[0]
    book.item(
        f"drafts, {rows} rows, {context} tokens",
        lambda: drafted(book, decoder, device, batches[0], steps, warm),
    )
    for bits in (8, 4):
        wanted = f"int{bits}, {rows} rows, {context} tokens"
        book.item(wanted, lambda bits=bits: rounded(config, device, dtype, batches[0], steps, warm, bits))  # type: ignore[misc]


def drafted(
    book: Book, decoder: Decoder, device: torch.device, batch: tuple[int, int], steps: int, warm: int
) -> dict[str, float]:
    """Milliseconds of a step that checks so many drafts a row, and its gain over the fastest plain step where
    each draft is right with probability ACCEPTED and costs nothing, as copied ones."""
    rows, context = batch
    cache = decoder.new_cache(rows * -(-context // PAGE) * PAGE)
    for layer in cache:
        layer.normal_()
    calls = {"plain": one_step(decoder, cache, rows, context, KERNELS)}
    tried = [drafts for drafts in DRAFTS if 2 * drafts < context]
    calls |= {
        f"{drafts} drafts": one_step(decoder, cache, rows, context, KERNELS, drafts) for drafts in tried
    }
    found = alternated(calls, device, steps, warm)
    captured_ms = book.items.get(f"{rows} rows, {context} tokens", {}).get("all kernels, captured")
    plain_ms = min(found["plain"], captured_ms or found["plain"])
    for drafts in tried:
        found[f"{drafts} drafts, gain"] = expected_tokens(drafts) * plain_ms / found[f"{drafts} drafts"]
    told = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    print(f"  {rows} rows with drafts, ms a step: {told}", flush=True)
    return found


def expected_tokens(drafts: int, accepted: float = ACCEPTED) -> float:
    """Of one check: the drafts up to the first wrong one, and the model's own token behind them."""
    return (1.0 - accepted ** (drafts + 1)) / (1.0 - accepted)


def rounded(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    batch: tuple[int, int],
    steps: int,
    warm: int,
    bits: int,
) -> dict[str, float]:
    """The step with rounded weights: by their kernel, and widened first."""
    rows, context = batch
    decoder = random_decoder(config, dtype, device, bits)
    cache = decoder.new_cache(rows * -(-context // PAGE) * PAGE)
    for layer in cache:
        layer.normal_()
    arms = {"widened": KERNELS, "kernel": (*KERNELS, f"quantised_linear_{bits}")}
    calls = {name: one_step(decoder, cache, rows, context, on) for name, on in arms.items()}
    found = alternated(calls, device, steps, warm)
    print(f"  int{bits}, {rows} rows, ms a step: {found}", flush=True)
    return found


def weight_bytes(decoder: Decoder) -> int:
    """What a step reads of the weights: all but the embedding."""
    config = decoder.config
    return (config.parameters - config.vocab * config.hidden) * decoder.dtype.itemsize


def one_step(
    decoder: Decoder,
    cache: Sequence[torch.Tensor],
    rows: int,
    context: int,
    on: Sequence[str],
    drafts: int = 0,
) -> Callable[[], object]:
    """A step that draws a token for each row and each of its drafts, as the pipeline does: plan, forward,
    sample, one transfer."""
    asked = [(seed, context - drafts + at) for seed in range(rows) for at in range(drafts + 1)]
    sampling = [RowSampling(position, seed, 0.8, 50, 0.9) for seed, position in asked]

    def step() -> object:
        with forced(*on):
            batch = packed([1 + drafts] * rows, [context] * rows, cache, decoder.config.vocab)
            if drafts:
                batch = replace(batch, last=upload(range(len(asked)), torch.int64, cache[0].device))
            return draw(computed(decoder, batch, cache), sampling)

    return step


def alternated(
    calls: dict[str, Callable[[], object]], device: torch.device, rounds: int, warm: int
) -> dict[str, float]:
    """Mean milliseconds of each; arms in turn, `warm` rounds first that do not count."""
    spent = dict.fromkeys(calls, 0.0)
    for number in range(-warm, rounds):
        for name, call in calls.items():
            began = settled(device)
            call()
            if number >= 0:
                spent[name] += (settled(device) - began) * 1e3 / rounds
    return spent


def captured(
    decoder: Decoder, cache: Sequence[torch.Tensor], rows: int, context: int, steps: int
) -> dict[str, float]:
    """The same step with a captured forward pass: milliseconds, how often the host waits for the device in
    it, and how far its logits are from those of the launched pass: the greatest root mean square of a row."""
    config, device = decoder.config, cache[0].device
    memory = KvMemory(cache, frozenset({0}), prefix_reuse=False)
    bucket = (rows, -(-context // PAGE) * PAGE)
    graphs = Captured(decoder, memory, [bucket], cuda_capture())
    sampling = [RowSampling(context, seed, 0.8, 50, 0.9) for seed in range(rows)]

    def step() -> torch.Tensor:
        batch = packed([1] * rows, [context] * rows, cache, config.vocab)
        logits = whole(graphs.forward(batch, cache, config.layers))
        draw(logits, sampling)
        return logits

    batch = packed([1] * rows, [context] * rows, cache, config.vocab)
    difference = apart(step(), computed(decoder, batch, cache))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        step()
        torch.cuda.set_sync_debug_mode("default")
    began = settled(device)
    for _ in range(steps):
        step()
    spent = (settled(device) - began) * 1e3 / steps
    return {"all kernels, captured": spent, "waits a step": float(waits(said)), "difference": difference}


def waits(said: Sequence[warnings.WarningMessage]) -> int:
    """How often the device was waited for. Torch says beside it, once, that this is a prototype."""
    return sum("called a synchronizing" in str(each.message) for each in said)


def settled(device: torch.device) -> float:
    """The time, in seconds, once the device has done all."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
