"""Attention over the paged cache: decode with parts, windows and trees; shared prefixes; prompt chunks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import kernel_checks as checks
from benchmarks.kernel_checks import Heads, poisoned_memory, rig

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
HEADS = [Heads(2, 2, 8), Heads(4, 1, 16), Heads(6, 2, 12)]
Rows = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory():
        yield


def rows(most: int, earlier: int) -> st.SearchStrategy[Rows]:
    """(new tokens, earlier tokens) of a few rows; empty ones too."""
    row = st.tuples(st.integers(0, most), st.integers(0, earlier))
    return st.lists(row, min_size=1, max_size=3).filter(lambda found: any(count for count, _ in found))


def split(found: Rows) -> tuple[list[int], list[int]]:
    return [count for count, _ in found], [count + earlier for count, earlier in found]


@pytest.mark.parametrize("dtype", DTYPES)
def test_decode_over_several_parts(dtype: torch.dtype) -> None:
    """A context of four parts beside an empty row, one token, and exactly one page."""
    checks.paged_decode(rig("cpu", dtype), HEADS[0], [1, 0, 1, 1], [700, 0, 1, 16])


def check_decode(found: Rows, heads: Heads, window: int, tree: bool, seed: int) -> None:
    counts, contexts = split(found)
    checks.paged_decode(rig("cpu", torch.float32, seed), heads, counts, contexts, window=window, tree=tree)


@settings(deadline=None, derandomize=True, max_examples=8)
@given(rows(5, 90), st.sampled_from(HEADS), st.sampled_from([0, 1, 20]), st.booleans(), st.integers(0, 99))
def test_decode(found: Rows, heads: Heads, window: int, tree: bool, seed: int) -> None:
    """A tree is never deeper than its window."""
    check_decode(found, heads, 0 if tree and window == 1 else window, tree, seed)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    rows(9, 400), st.sampled_from(HEADS), st.sampled_from([0, 1, 20, 300]), st.booleans(), st.integers(0, 99)
)
def test_decode_on_many_shapes(found: Rows, heads: Heads, window: int, tree: bool, seed: int) -> None:
    check_decode(found, heads, 0 if tree and window == 1 else window, tree, seed)


def test_more_queries_than_a_tile_holds() -> None:
    """33 heads of queries to one of keys: neither tokens nor heads end where a tile does."""
    checks.paged_decode(rig("cpu", torch.float32), Heads(33, 1, 8), [5, 1], [20, 9], window=10)


def test_a_tree_of_64_nodes() -> None:
    """The last bit is the sign of an int64."""
    checks.paged_decode(rig("cpu", torch.float32), Heads(1, 1, 8), [64], [70], tree=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "prefix"), [(HEADS[0], 16), (HEADS[2], 336)])
def test_a_shared_prefix_changes_nothing(heads: Heads, prefix: int, dtype: torch.dtype) -> None:
    counts, own = [1, 3, 1], [1, 20, 40]
    checks.shared_prefix(rig("cpu", dtype), heads, counts, [prefix + each for each in own], prefix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_prompt_chunks(dtype: torch.dtype) -> None:
    """One token, a tile's edge, several tiles, a window."""
    checks.paged_prefill(rig("cpu", dtype), HEADS[2], [1, 5, 43], [30, 5, 60])
    checks.paged_prefill(rig("cpu", dtype), HEADS[1], [16, 17], [48, 17], window=9)


def check_prefill(found: Rows, heads: Heads, window: int, seed: int) -> None:
    checks.paged_prefill(rig("cpu", torch.float32, seed), heads, *split(found), window=window)


@settings(deadline=None, derandomize=True, max_examples=5)
@given(rows(40, 60), st.sampled_from(HEADS), st.sampled_from([0, 1, 20]), st.integers(0, 99))
def test_prefill(found: Rows, heads: Heads, window: int, seed: int) -> None:
    check_prefill(found, heads, window, seed)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=80)
@given(rows(150, 200), st.sampled_from(HEADS), st.sampled_from([0, 1, 20, 100]), st.integers(0, 99))
def test_prefill_on_many_shapes(found: Rows, heads: Heads, window: int, seed: int) -> None:
    check_prefill(found, heads, window, seed)
