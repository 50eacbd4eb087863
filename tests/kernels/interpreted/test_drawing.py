"""Tokens drawn on the device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import kernel_checks as checks
from benchmarks.kernel_checks import poisoned_memory, rig
from kernels.drawing import perturbed_argmax
from kernels.sampling import RowSampling

MIXED = [
    RowSampling(3),
    RowSampling(4, seed=9, temperature=0.8),
    RowSampling(4, seed=2**64 - 3, temperature=1.2, top_k=5),
    RowSampling(2**20, temperature=1.0, top_p=0.7),
    RowSampling(9, temperature=1.0, min_p=0.1),
    RowSampling(9, temperature=1.0, top_p=1e-6),
    RowSampling(9, top_k=2, repetition_penalty=3.0, seen=range(100)),
    RowSampling(9, temperature=1e-6, top_p=5e-324, min_p=5e-324, repetition_penalty=0.01, seen=[1, 2]),
    RowSampling(
        1,
        seed=4,
        temperature=0.7,
        top_k=9,
        top_p=0.8,
        min_p=0.01,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.2,
        seen=[1, 2, 2, 5],
        generated=[2, 2, 5],
    ),
]


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    with poisoned_memory():
        yield


@pytest.mark.parametrize("vocab", [1, 100, 1030])
def test_all_settings_side_by_side(vocab: int) -> None:
    seen = [
        RowSampling(
            **{name: getattr(row, name) for name in RowSampling.__slots__} | {"seen": [0], "generated": [0]}
        )
        for row in MIXED
    ]
    checks.drawn(rig("cpu", torch.float32, vocab), vocab, MIXED if vocab > 99 else seen)


def test_what_is_not_allowed_is_not_drawn() -> None:
    """One id of a thousand, three of them, and none beyond the first block."""
    few, three, first = (torch.zeros(1030, dtype=torch.bool) for _ in range(3))
    few[77], three[[1, 500, 1029]], first[:20] = True, True, True
    rows = [
        RowSampling(3, allowed=few),
        RowSampling(4, seed=9, temperature=0.8, allowed=three),
        RowSampling(4, seed=2, temperature=1.2, top_k=5, top_p=0.9, allowed=three),
        RowSampling(5, temperature=0.7, min_p=0.1, allowed=first),
        RowSampling(6, temperature=0.7),
    ]
    checks.drawn(rig("cpu", torch.float32, 3), 1030, rows)
    logits = torch.randn(5, 1030, generator=torch.Generator().manual_seed(1))
    found = perturbed_argmax(logits, rows)
    assert [
        bool(row.allowed[token])
        for row, token in zip(rows[:4], found, strict=False)
        if row.allowed is not None
    ] == [True] * 4


def test_a_large_vocabulary_in_several_parts() -> None:
    checks.drawn(rig("cpu", torch.float32), 5000, [RowSampling(7, seed=1, temperature=1.0)])


def test_ties_with_the_last_one_kept_stay() -> None:
    """As in the specification: the filter's edge is a score, and all that reach it may be drawn."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0, -torch.inf]])
    filters: list[dict[str, float]] = [{"top_k": 1}, {"top_p": 0.2}, {"top_k": 2, "top_p": 0.6}]
    rows = [RowSampling(n, temperature=1.0, **filters[n % 3]) for n in range(12)]  # type: ignore[arg-type]
    assert {int(i) for i in perturbed_argmax(logits.repeat(12, 1), rows)} == {1, 2, 3}


def test_rows_of_nan_and_of_infinities_give_some_id() -> None:
    """`draw` reports them by the greatest logit; the id only has to be one of the vocabulary."""
    logits = torch.full((2, 40), torch.nan)
    logits[1] = -torch.inf
    found = perturbed_argmax(logits, [RowSampling(1, temperature=t, top_k=3) for t in (1.0, 0.5)])
    assert all(0 <= int(i) < 40 for i in found)


probability = st.sampled_from([1.0, 0.3, 0.9])


@settings(deadline=None, derandomize=True, max_examples=5)
@given(
    st.integers(2, 300),
    st.integers(0, 2**64 - 1),
    st.integers(0, 40),
    probability,
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([0.1, 4.0]),
)
def test_any_settings(vocab: int, seed: int, top_k: int, top_p: float, min_p: float, spread: float) -> None:
    row = RowSampling(5, seed, 0.9, top_k, top_p, min_p)
    checks.drawn(
        rig("cpu", torch.float32, seed % 1000), vocab, [row, RowSampling(6, seed, 1.1)], spread=spread
    )


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.integers(2, 3000),
    st.integers(0, 2**64 - 1),
    st.integers(0, 40),
    probability,
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([0.1, 4.0]),
)
def test_many_settings(vocab: int, seed: int, top_k: int, top_p: float, min_p: float, spread: float) -> None:
    row = RowSampling(5, seed, 0.9, top_k, top_p, min_p)
    checks.drawn(
        rig("cpu", torch.float32, seed % 1000), vocab, [row, RowSampling(6, seed, 1.1)], spread=spread
    )
