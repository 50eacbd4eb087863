"""Each Triton kernel against its specification in plain torch, on any device, dtype and shape.

The tests run these under Triton's interpreter on tiny shapes, `benchmarks.gpu` on a GPU on real ones.
Inputs lie in strided views whose gaps hold NaN, cache slots that no row owns hold NaN, and fresh memory is
filled with NaN, so that what reads or leaves anything it should not is found out.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import reference, reference_decoder, reference_media, sampling
from kernels.paged import paged_attention, paged_rows
from kernels.quantised import quantise, quantised_linear

PAGE = 16
# Greatest difference against the specification: absolute, and relative to the value.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# So much wider for attention in float32: queries do not carry the scale here, so that scores reach 40 and a
# softmax is sharp; what the specification itself rounds of such scores comes out as 1.5e-5 already.
SHARP = 10.0


@dataclass(frozen=True, slots=True)
class Rig:
    """Where and in what numbers a check runs; all randomness comes from `generator`, on the CPU."""

    device: torch.device
    dtype: torch.dtype
    generator: torch.Generator

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal numbers; none on "meta"."""
        if self.device.type == "meta":
            return torch.empty(shape, dtype=dtype or self.dtype, device=self.device)
        made = torch.randn(shape, generator=self.generator)
        return made.to(self.device, dtype or self.dtype)

    def strided(self, rows: int, width: int) -> Tensor:
        """A matrix whose rows lie apart, with NaN between them."""
        whole = torch.full((rows, width + 24), torch.nan, dtype=self.dtype, device=self.device)
        whole[:, 8 : width + 8] = self.normal(rows, width)
        return whole[:, 8 : width + 8]

    def close(self, found: Tensor, expected: Tensor, wider: float = 1.0) -> None:
        """Raises: AssertionError with the greatest difference."""
        near = TOLERANCE[self.dtype] * wider
        torch.testing.assert_close(found.float(), expected.float(), atol=near, rtol=near)

    def attended(self, found: Tensor, expected: Tensor) -> None:
        """`close` for attention."""
        self.close(found, expected, wider=SHARP if self.dtype == torch.float32 else 1.0)


def rig(device: str, dtype: torch.dtype, seed: int = 0) -> Rig:
    """A fresh one."""
    return Rig(torch.device(device), dtype, torch.Generator().manual_seed(seed))


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Memory that torch hands out holds NaN, or the greatest whole number."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, key-value heads, size of a head."""

    queries: int
    kv: int
    size: int


def cached(
    rig: Rig, heads: Heads, counts: Sequence[int], contexts: Sequence[int], shared: int = 0
) -> tuple[Tensor, Tensor, list[list[int]]]:
    """(strided queries, cache, pages of each row): scattered pages, of which the first `shared` belong to
    all."""
    needed = [-(-context // PAGE) for context in contexts]
    order = torch.randperm(sum(needed) + shared + 3, generator=rig.generator).tolist()
    common, rest = order[:shared], iter(order[shared:])
    pages = [common + [next(rest) for _ in range(number - shared)] for number in needed]
    cache = torch.full((2 * heads.kv, len(order) * PAGE, heads.size), torch.nan, device=rig.device)
    cache = cache.to(rig.dtype)
    for row, context in zip(pages, contexts, strict=True):
        numbers = [page * PAGE + i for page in row for i in range(PAGE)][:context]
        slots = torch.tensor(numbers, dtype=torch.int64, device=rig.device)
        cache[:, slots] = rig.normal(2 * heads.kv, context, heads.size)
    q = rig.strided(sum(counts), heads.queries * heads.size)
    return by_head(q, heads.size), cache, pages


def firsts(counts: Sequence[int]) -> list[int]:
    """Where each row begins in a batch without gaps."""
    return list(itertools.accumulate(counts, initial=0))[:-1]


def by_head(x: Tensor, size: int) -> Tensor:
    """`[rows, heads * size]` as `[rows, heads, size]`, strides kept."""
    return x.view(x.shape[0], x.shape[1] // size, size)


def trees(rig: Rig, counts: Sequence[int]) -> list[int]:
    """Random trees: which new tokens each one sees, as bits; a parent stands before its children."""
    bits: list[int] = []
    for count in counts:
        seen: list[int] = []
        for node in range(count):
            parent = int(torch.randint(max(1, node), (1,), generator=rig.generator))
            seen.append((seen[parent] if node else 0) | 1 << node)
        bits += seen
    return bits


def paged_decode(
    rig: Rig,
    heads: Heads,
    counts: Sequence[int],
    contexts: Sequence[int],
    *,
    window: int = 0,
    tree: bool = False,
) -> None:
    """Rows of few new tokens."""
    from kernels.paged_decode import paged_decode as fast

    q, cache, pages = cached(rig, heads, counts, contexts)
    bits = trees(rig, counts) if tree else None
    rows = paged_rows(firsts(counts), counts, contexts, pages, PAGE, rig.device, window=window, visible=bits)
    expected = paged_attention(q, cache, rows)
    forget(cache, pages, counts, contexts, window)
    rig.attended(fast(q, cache, rows), expected)


def forget(
    cache: Tensor, pages: list[list[int]], counts: Sequence[int], contexts: Sequence[int], window: int
) -> None:
    """Tokens that lie before every query's window may have been overwritten."""
    for row, count, context in zip(pages, counts, contexts, strict=True):
        for at in range(context - count - window + 1 if window else 0):
            cache[:, row[at // PAGE] * PAGE + at % PAGE] = torch.nan


def shared_prefix(
    rig: Rig, heads: Heads, counts: Sequence[int], contexts: Sequence[int], prefix: int
) -> None:
    """`prefix`: common tokens, a multiple of the page."""
    from kernels.shared_prefix import shared_prefix_decode

    q, cache, pages = cached(rig, heads, counts, contexts, shared=prefix // PAGE)
    rows = paged_rows(firsts(counts), counts, contexts, pages, PAGE, rig.device)
    rig.attended(shared_prefix_decode(q, cache, rows, prefix), paged_attention(q, cache, rows))


def paged_prefill(
    rig: Rig, heads: Heads, counts: Sequence[int], contexts: Sequence[int], *, window: int = 0
) -> None:
    """Rows of any number of new tokens."""
    from kernels.paged_prefill import paged_prefill as fast
    from kernels.paged_prefill import tiles_of

    q, cache, pages = cached(rig, heads, counts, contexts)
    rows = paged_rows(firsts(counts), counts, contexts, pages, PAGE, rig.device, window=window)
    tiles, side = tiles_of(list(counts), heads.queries // heads.kv, rig.device)
    expected = paged_attention(q, cache, rows)
    forget(cache, pages, counts, contexts, window)
    rig.attended(fast(q, cache, rows, tiles, side), expected)


def rms_norm(rig: Rig, tokens: int, width: int) -> None:
    """With and without the residual."""
    from kernels import norm

    x, residual = rig.strided(tokens, width), rig.strided(tokens, width)
    weight, eps = rig.normal(width), torch.tensor(1e-5, device=rig.device)
    rig.close(norm.rms_norm(x, weight, eps), reference.rms_norm(x, weight, eps))
    total, normed = norm.add_rms_norm(x, residual, weight, eps)
    expected_total, expected = reference_decoder.add_rms_norm(x, residual, weight, eps)
    rig.close(total, expected_total)
    rig.close(normed, expected)


def rope_append(rig: Rig, heads: Heads, tokens: int, *, norms: bool) -> None:
    """Queries, and the whole cache, poison included."""
    from kernels.rope import rope_append as fast

    every = heads.queries + 2 * heads.kv
    mixed = by_head(rig.strided(tokens, every * heads.size), heads.size)
    angles = rig.normal(tokens, 1, heads.size // 2, dtype=torch.float32)
    rotation = torch.polar(torch.full_like(angles, 0.7), angles)
    slots = torch.randperm(tokens + 9, generator=rig.generator)[:tokens].to(rig.device)
    cache = torch.full((2 * heads.kv, tokens + 9, heads.size), torch.nan, device=rig.device).to(rig.dtype)
    eps = torch.tensor(1e-6, device=rig.device)
    weights = (rig.normal(heads.size), rig.normal(heads.size), eps) if norms else None
    expected_mixed, expected = mixed.clone(), cache.clone()
    reference_decoder.rope_append(expected_mixed, rotation, expected, slots, heads.queries, weights)
    fast(mixed, rotation, cache, slots, heads.queries, weights)
    rig.close(mixed[:, : heads.queries], expected_mixed[:, : heads.queries])
    assert torch.equal(cache.isnan(), expected.isnan()), "only the given slots are written"
    rig.close(cache.nan_to_num(), expected.nan_to_num())


def gate(rig: Rig, tokens: int, width: int, act: str) -> None:
    """The gated activation."""
    from kernels.gate import gate_multiply

    x = rig.strided(tokens, 2 * width)
    rig.close(gate_multiply(x, act), reference_decoder.gate_multiply(x, act))


def quantised(rig: Rig, rows: int, inputs: int, outputs: int, bits: int, group: int) -> None:
    """Up to 16 rows; beside the product in fp32."""
    from kernels.quantised_matvec import quantised_linear as fast

    weight = quantise(rig.normal(outputs, inputs) / inputs**0.5, bits, group)
    x = rig.strided(rows, inputs)
    rig.close(fast(x, weight), quantised_linear(x.float(), weight))


def drawn(rig: Rig, vocab: int, rows: Sequence[sampling.RowSampling], *, spread: float = 3.0) -> None:
    """Equal tokens, but where the two best scores, or a score and the filter's edge, are within rounding."""
    from kernels.drawing import perturbed_argmax

    logits = rig.normal(len(rows), vocab, dtype=torch.float32) * spread
    scores = sampling.perturbed(logits.clone(), rows)
    found = perturbed_argmax(logits.clone(), rows)
    assert bool(((found >= 0) & (found < vocab)).all()), f"drawn {found.tolist()} of {vocab}"
    loss = scores.amax(1) - scores.gather(1, found.unsqueeze(1)).squeeze(1)
    assert bool((loss <= 1e-4).all()), f"drawn {found.tolist()} instead of {scores.argmax(1).tolist()}"


def group_norm(
    rig: Rig, images: int, channels: int, groups: int, side: tuple[int, int], *, silu: bool
) -> None:
    """Far from zero, where a plain sum of squares would lose its digits."""
    from kernels.group_norm import group_norm_silu

    x = rig.normal(images, channels, *side) + 5.0
    weight, bias = rig.normal(channels), rig.normal(channels)
    expected = reference_media.group_norm_silu(
        x.float(), groups, weight.float(), bias.float(), 1e-5, silu=silu
    )
    rig.close(group_norm_silu(x, groups, weight, bias, 1e-5, silu=silu), expected, wider=2.0)


def modulate(rig: Rig, images: int, tokens: int, width: int) -> None:
    """Scale and shift are chunks of one product."""
    from kernels.modulation import modulate as fast

    whole = rig.strided(images * tokens, width)
    x = whole.view(images, tokens, width)
    shift, scale, _ = rig.strided(images, 3 * width).chunk(3, dim=1)
    expected = reference_media.modulate(x.float(), scale.float(), shift.float(), 1e-6)
    rig.close(fast(x, scale, shift, 1e-6), expected, wider=2.0)


def latent_steps(rig: Rig, sums: int, tensors: int, shape: tuple[int, ...]) -> None:
    """In fp32, whatever the rig's dtype; one tensor may be among them twice."""
    from kernels.latents import latent_steps as fast

    given = [rig.normal(*shape, dtype=torch.float32) for _ in range(tensors)]
    given[-1] = given[0]
    weights = rig.normal(sums, tensors, dtype=torch.float32).cpu()
    expected = reference_media.latent_steps(given, weights)
    torch.testing.assert_close(fast(given, weights), expected, atol=1e-5, rtol=1e-5)


def overlap_add(rig: Rig, batch: int, frames: int, length: int, hop: int, *, windowed: bool) -> None:
    """Overlapping, touching and gapped frames, some of whose samples are cut."""
    from kernels.overlap import overlap_add as fast

    sound = rig.normal(batch, frames, length)
    window = torch.hann_window(length, device=rig.device) if windowed else None
    found = fast(sound, hop, window)
    expected = reference_media.overlap_add(sound, hop, window)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
