"""Position-keyed sampling: distribution, reproducibility, filters, penalties, log-probabilities."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import RowSampling, draw
from kernels.sampling import PREFIX, _thresholds, gumbel, peaks, perturbed
from pipelines.limits import COLDEST, REPETITION_LIMITS

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -4.0])


def chi_square(counts: list[int], expected: torch.Tensor) -> float:
    total = sum(counts)
    return sum(
        (n - total * float(p)) ** 2 / (total * float(p)) for n, p in zip(counts, expected, strict=True)
    )


def counted(row: RowSampling, draws: int = 8000) -> list[int]:
    rows = [
        RowSampling(
            position=position,
            seed=row.seed,
            temperature=row.temperature,
            top_k=row.top_k,
            top_p=row.top_p,
            min_p=row.min_p,
        )
        for position in range(draws)
    ]
    counts = [0] * len(LOGITS)
    for token in draw(LOGITS.expand(draws, -1), rows):
        counts[token.id] += 1
    return counts


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_from_the_softmax(temperature: float) -> None:
    counts = counted(RowSampling(0, seed=3, temperature=temperature))
    # 99.9 % point of chi-square with 7 degrees of freedom
    assert chi_square(counts, (LOGITS / temperature).softmax(-1)) < 24.3


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (RowSampling(0, temperature=1.0, top_k=3), 3),
        (RowSampling(0, temperature=1.0, top_p=0.7), 2),
        (RowSampling(0, temperature=1.0, min_p=0.2), 3),
        (RowSampling(0, temperature=1.0, top_k=2, top_p=0.99, min_p=0.01), 2),
        (RowSampling(0, temperature=1.0, top_p=1e-6), 1),
    ],
)
def test_filters_keep_the_likeliest_and_their_proportions(row: RowSampling, kept: int) -> None:
    counts = counted(row)
    assert sum(counts[kept:]) == 0
    if kept > 1:
        assert chi_square(counts[:kept], LOGITS[:kept].softmax(-1)) < 16.3


def test_no_option_within_its_limits_makes_a_score_that_is_no_number() -> None:
    """Nor draws what may not be drawn. The numbers are the ends of the limits, subnormal ones too."""
    allowed = torch.zeros(320, dtype=torch.bool)
    allowed[[3, 7, 200]] = True
    rows = [
        RowSampling(9, 2**64 - 1, heat, top_k, top_p, min_p, repeated, said, often, range(99), [3, 7, 7] * 99)
        for heat in (0.0, COLDEST, 2.0)
        for top_k in (0, 1)
        for top_p in (5e-324, 1.0)
        for min_p in (5e-324, 1.0)
        for repeated in REPETITION_LIMITS
        for said, often in ((-2.0, -2.0), (5e-324, 2.0))
    ]
    logits = 1e3 * torch.randn(320, generator=torch.Generator().manual_seed(0)).expand(len(rows), -1)
    for may in (None, allowed):
        scores = perturbed(logits.clone(), [replace(row, allowed=may) for row in rows])
        assert not scores.isnan().any()
        assert scores.max(-1).values.isfinite().all()


def test_filters_over_a_large_vocabulary_equal_a_full_sort() -> None:
    """Flat rows need more than the short prefix, peaked rows do not."""
    generator = torch.Generator().manual_seed(0)
    for spread in (0.1, 3.0):
        logits = torch.randn(6, 3 * PREFIX, generator=generator) * spread
        for top_k, top_p, min_p in ((0, 0.9, 0.0), (5, 0.8, 0.0), (PREFIX + 9, 0.97, 0.0), (0, 1.0, 0.3)):
            rows = [RowSampling(0, top_k=top_k, top_p=top_p, min_p=min_p, temperature=1.0)] * 6
            ordered = logits.sort(descending=True).values
            inside = torch.arange(3 * PREFIX) < (top_k or 3 * PREFIX)
            share = ordered.masked_fill(~inside, -math.inf).softmax(-1)
            keep = inside & (share.cumsum(-1) - share < top_p) & (share >= min_p * share[:, :1])
            expected = ordered.gather(1, keep.sum(-1, keepdim=True) - 1)
            torch.testing.assert_close(_thresholds(logits, rows), expected, atol=1e-6, rtol=0)


def test_positions_and_seeds_are_independent() -> None:
    noise = gumbel([(seed, position) for seed in range(40) for position in range(40)], 50)
    assert noise.mean() == pytest.approx(0.5772, abs=0.02)
    assert noise.var() == pytest.approx(math.pi**2 / 6, abs=0.05)
    flat = noise.view(40, 40, 50)
    for left, right in ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]), (flat[..., 1:], flat[..., :-1])):
        together = torch.stack((left.reshape(-1), right.reshape(-1)))
        assert abs(float(torch.corrcoef(together)[0, 1])) < 0.02


def test_noise_keeps_its_bits() -> None:
    """Against the same hash in whole numbers of unlimited size."""
    keys = [(0, 0), (2**64 - 5, 7), (2**63, 4095)]
    expected = [
        [whole_number_noise(seed, position, token) for token in range(500)] for seed, position in keys
    ]
    torch.testing.assert_close(gumbel(keys, 500), torch.tensor(expected), atol=1e-6, rtol=0)


def whole_number_noise(seed: int, position: int, token: int) -> float:
    def split_mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    def low_bias(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    key = split_mix(split_mix(seed) ^ position)
    bits = low_bias(low_bias((token + key) % 2**32) ^ key >> 32)
    return -math.log(-math.log((bits + 0.5) / 2**32))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 2**64 - 1), st.integers(0, 5000), st.integers(0, 7))
def test_batching_changes_nothing(seed: int, position: int, place: int) -> None:
    row = RowSampling(position, seed=seed, temperature=0.9, top_p=0.9)
    others = [RowSampling(position + i, seed=i, temperature=0.3 * i) for i in range(7)]
    alone = draw(LOGITS.unsqueeze(0), [row])[0]
    rows = [*others[:place], row, *others[place:]]
    assert draw(LOGITS.expand(8, -1), rows)[place].id == alone.id


def test_greedy_is_the_argmax_of_penalised_logits() -> None:
    def greedy(seen: list[int], generated: list[int], **penalties: float) -> int:
        row = RowSampling(9, seen=seen, generated=generated, **penalties)  # type: ignore[arg-type]
        return draw(LOGITS.unsqueeze(0), [row])[0].id

    assert greedy([], []) == 0
    assert greedy([0, 0], [0], repetition_penalty=3.0) == 1
    assert greedy([0], [0], presence_penalty=1.5) == 1
    assert greedy([0], [0], frequency_penalty=0.4) == 0
    assert greedy([0], [0, 0, 0], frequency_penalty=0.4) == 1
    assert greedy([7], [7], presence_penalty=-2.0) == 0


def test_repetition_penalty_equals_transformers() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    seen = [0, 3, 4, 4, 6]
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([seen]), LOGITS.unsqueeze(0).clone())
    logits = LOGITS.unsqueeze(0)
    drawn = draw(logits, [RowSampling(0, seen=seen, repetition_penalty=1.7)])[0]
    assert drawn.id == int(expected.argmax())
    assert torch.equal(logits[0], LOGITS), "the caller's logits stay as they are"


def test_log_probabilities_are_those_of_the_model() -> None:
    rows = [
        RowSampling(4, seed=1, temperature=1.3, top_k=2, logprobs=3),
        RowSampling(4),
        RowSampling(4, logprobs=8),
    ]
    first, second, third = draw(LOGITS.expand(3, -1), rows)
    expected = LOGITS.log_softmax(-1)
    assert first.logprob == pytest.approx(float(expected[first.id]), abs=1e-6)
    assert [i for i, _ in first.top] == [0, 1, 2]
    assert (second.logprob, second.top) == (0.0, ())
    assert [v for _, v in third.top] == pytest.approx(expected.tolist(), abs=1e-6)


def test_peaks_are_the_first_of_the_highest() -> None:
    """As `torch.max` has them, ties and what is no number included."""
    scores = torch.randint(5, (60, 700), generator=torch.Generator().manual_seed(0)).float()
    scores[1, 300] = scores[2, 10] = scores[2, 20] = math.nan
    scores[3] = -math.inf
    scores[4, 17] = math.inf
    for found, wanted in zip(peaks(scores), scores.max(-1), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def test_nan_is_reported_for_its_row_only() -> None:
    logits = LOGITS.repeat(4, 1)
    logits[1, 5] = math.nan
    logits[2] = -math.inf
    rows = [RowSampling(0, temperature=t) for t in (0.0, 1.0, 1.0, 1.0)]
    assert [token.finite for token in draw(logits, rows)] == [True, False, False, True]
