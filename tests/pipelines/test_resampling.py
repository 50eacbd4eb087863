"""Resampling in pieces: the same as at once, short delay, no aliases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract import FloatArray
from pipelines.resampling import StreamResampler


def tone(hz: float, rate: int, seconds: float = 1.0) -> FloatArray:
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def whole(samples: FloatArray, source: int, target: int) -> FloatArray:
    stream = StreamResampler(source, target)
    return np.concatenate([stream.push(samples), stream.finish()])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([8000, 22_050, 24_000, 48_000]), st.lists(st.integers(0, 1600), max_size=8))
def test_pieces_equal_the_whole(rate: int, cuts: list[int]) -> None:
    samples = tone(440, 16_000, 0.1)
    edges = [0, *sorted(cuts), len(samples)]
    stream = StreamResampler(16_000, rate)
    pieces = [stream.push(samples[a:b]) for a, b in itertools.pairwise(edges)]
    joined = np.concatenate([*pieces, stream.finish()])
    assert np.array_equal(joined, whole(samples, 16_000, rate))


@pytest.mark.parametrize("rate", [8000, 11_025, 24_000, 44_100, 48_000])
def test_length_loudness_and_delay(rate: int) -> None:
    samples = tone(1000, 16_000)
    out = whole(samples, 16_000, rate)
    assert abs(len(out) - rate) <= rate // 1000
    middle = out[rate // 4 : rate * 3 // 4]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(1.0, abs=2e-3)
    assert len(StreamResampler(16_000, rate).push(samples[:800])) >= 0.034 * rate


def test_what_lies_above_the_new_band_is_gone() -> None:
    assert np.abs(whole(tone(4600, 16_000), 16_000, 8000)[800:7000]).max() < 1e-4


def test_equal_rates_pass_through() -> None:
    samples = tone(440, 16_000, 0.01)
    stream = StreamResampler(16_000, 16_000)
    assert np.array_equal(stream.push(samples), samples)
    assert len(stream.finish()) == 0
