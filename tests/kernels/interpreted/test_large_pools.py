"""A pool of more than 2^31 numbers: whatever addresses it counts in 64 bits. Its memory is address space that
nothing was written to, but for the pages in use."""

from __future__ import annotations

import mmap

import pytest
import torch

from kernels.paged import PagedRows, paged_attention, paged_rows
from kernels.paged_decode import paged_decode
from kernels.paged_prefill import paged_prefill, tiles_of
from kernels.rope import rope_append
from kernels.shared_prefix import shared_prefix_decode

PAGE, HEADS, SIZE = 16, 2, 16
SLOTS = (1 << 31) // SIZE + 4 * PAGE


@pytest.fixture(scope="module")
def cache() -> torch.Tensor:
    """float16 `[2, slots, 16]`: the last slots lie behind 2^31 numbers, the values behind 2^31 more."""
    no_reserve = 0x4000  # of Linux, where Triton is; Python 3.11 has no name for it
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
    space = mmap.mmap(-1, 2 * 2 * SLOTS * SIZE, flags=flags)
    made = torch.frombuffer(space, dtype=torch.float16).view(2, SLOTS, SIZE)
    generator = torch.Generator().manual_seed(0)
    for first in (0, SLOTS - 4 * PAGE):
        made[:, first : first + 4 * PAGE] = torch.randn(2, 4 * PAGE, SIZE, generator=generator)
    return made


def rows(counts: list[int]) -> PagedRows:
    """Two rows that begin with the very last page."""
    last = SLOTS // PAGE - 1
    return paged_rows([0, counts[0]], counts, [40, 30], [[last, 0, last - 2], [last, last - 1]], PAGE, DEVICE)


DEVICE = torch.device("cpu")


def queries(tokens: int) -> torch.Tensor:
    return torch.randn(tokens, HEADS, SIZE, generator=torch.Generator().manual_seed(1)).half() * 0.25


@pytest.mark.parametrize("way", ["decode", "shared prefix", "prefill"])
def test_attention(way: str, cache: torch.Tensor) -> None:
    counts = [20, 3] if way == "prefill" else [1, 2]
    table, q = rows(counts), queries(sum(counts))
    if way == "prefill":
        found = paged_prefill(q, cache, table, *tiles_of(counts, HEADS, DEVICE))
    elif way == "decode":
        found = paged_decode(q, cache, table)
    else:
        found = shared_prefix_decode(q, cache, table, PAGE)
    torch.testing.assert_close(found, paged_attention(q, cache, table), atol=4e-3, rtol=4e-3)


def test_the_write_of_new_keys_and_values(cache: torch.Tensor) -> None:
    mixed = torch.randn(2, HEADS + 2, SIZE, generator=torch.Generator().manual_seed(2)).half()
    keys_and_values = mixed[:, HEADS:].clone()
    rotation = torch.ones(2, 1, SIZE // 2, dtype=torch.complex64)
    slots = torch.tensor([SLOTS - 5 * PAGE, 70])
    rope_append(mixed, rotation, cache, slots, HEADS)
    assert torch.equal(cache[:, slots].transpose(0, 1), keys_and_values)
