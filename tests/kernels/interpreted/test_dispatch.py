"""Every dispatched kernel at once in a whole decoder, against the same decoder without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import kernels
from benchmarks.kernel_checks import poisoned_memory
from benchmarks.llama import PAGE, TINY, computed, packed, random_decoder
from kernels.paged_plan import DECODED, SHARED
from kernels.reference import Span
from kernels.timings import forced
from pipelines.text.kv_cache import BLOCK
from pipelines.text.model import Decoder

ATTENTION = ("paged_decode", "paged_prefill", "shared_prefix")
LAYERS = ("rms_norm", "add_rms_norm", "rope_append", "gate_multiply")


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory():
        yield


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return random_decoder(TINY, torch.float32, torch.device("cpu"))


def logits(
    decoder: Decoder, counts: list[int], contexts: list[int], *on: str, common: int = 0
) -> torch.Tensor:
    """Over a cache of the same random past."""
    cache = tuple(
        torch.randn(each.shape, generator=torch.Generator().manual_seed(1)) for each in space(decoder)
    )
    with forced(*on):
        batch = packed(counts, contexts, cache, TINY.vocab, common=common)
        assert (batch.attention[0].paged is not None) == bool(set(on) & set(ATTENTION))
        return computed(decoder, batch, cache)


def space(decoder: Decoder) -> tuple[torch.Tensor, ...]:
    return decoder.new_cache(1200)


@pytest.mark.parametrize(
    ("counts", "contexts"), [([1, 1, 3], [40, 1, 20]), ([1, DECODED + 5, 2], [30, 50, 2]), ([20], [20])]
)
def test_all_kernels_in_a_decoder(decoder: Decoder, counts: list[int], contexts: list[int]) -> None:
    expected = logits(decoder, counts, contexts)
    found = logits(decoder, counts, contexts, *ATTENTION, *LAYERS)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_common_beginning_is_found(decoder: Decoder) -> None:
    counts, contexts = [1, 1], [SHARED + 17, SHARED + 40]
    expected = logits(decoder, counts, contexts, common=SHARED)
    found = logits(decoder, counts, contexts, *ATTENTION, common=SHARED)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    cache = space(decoder)
    with forced(*ATTENTION):
        for common, prefix in ((SHARED, SHARED), (SHARED - PAGE, 0)):
            paged = packed(counts, contexts, cache, TINY.vocab, common=common).attention[0].paged
            assert paged is not None
            assert paged.prefix == prefix


def test_rows_that_do_not_fill_pages_go_without(decoder: Decoder) -> None:
    cache = space(decoder)[0]
    with forced(*ATTENTION):
        assert kernels.plan_attention([Span(0, 1, 9, slice(0, 9))], cache).paged is not None
        assert kernels.plan_attention([Span(0, 1, 9, slice(5, 14))], cache).paged is None
        assert kernels.plan_attention([Span(0, 1, 20, torch.arange(20) + 1)], cache).paged is None


def test_one_kernel_that_is_off_leaves_the_attention_to_torch(decoder: Decoder) -> None:
    cache = space(decoder)[0]
    mixed = [Span(0, 1, 9, slice(0, 9)), Span(1, 30, 30, slice(16, 46))]
    with forced("paged_decode"):
        assert kernels.plan_attention(mixed, cache).paged is None
        assert kernels.plan_attention(mixed[:1], cache).paged is not None


def test_heads_that_fill_shared_memory_are_left_to_torch() -> None:
    with forced(*ATTENTION):
        for dtype, paged in ((torch.float16, True), (torch.float32, False)):
            cache = torch.empty(2, 2 * PAGE, 256, dtype=dtype)
            assert (kernels.plan_attention([Span(0, 1, 9, slice(0, 9))], cache).paged is not None) is paged


def test_pages_are_those_of_the_cache() -> None:
    assert PAGE == BLOCK


def test_a_drawn_token_is_the_same() -> None:
    scores = torch.randn(3, 200, generator=torch.Generator().manual_seed(2))
    rows = [kernels.RowSampling(5, seed=row, temperature=0.5 * row, top_p=0.9) for row in range(3)]
    with forced("perturbed_argmax"):
        found = kernels.draw(scores, rows)
    assert found == kernels.draw(scores, rows)
