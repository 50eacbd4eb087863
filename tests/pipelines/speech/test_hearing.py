"""Hearing: utterances in audio of any rate, however it is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.speech.hearing import Hearing, Silence, Voiced
from tests.pipelines.speech.vowels import pcm16, silence, vowels


def two_utterances(rate: int) -> bytes:
    return pcm16(silence(rate, 0.8), vowels(rate), silence(rate, 1.0), vowels(rate), silence(rate, 0.3))


def heard(rate: int, pieces: list[bytes]) -> list[Voiced | Silence]:
    hearing = Hearing(rate)
    for piece in pieces:
        hearing.push(piece, final=False)
        while hearing.waiting_s:
            hearing.step()
    hearing.push(b"", final=True)
    while hearing.can_step:
        hearing.step()
    assert hearing.over
    return list(hearing.found)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
def test_two_utterances_are_found_at_any_rate(rate: int) -> None:
    found = heard(rate, [two_utterances(rate)])
    ends = [piece for piece in found if isinstance(piece, Silence)]
    starts = {piece.start_ms for piece in found if isinstance(piece, Voiced)}
    assert len(ends) == len(starts) == 2
    np.testing.assert_allclose([end.start_ms for end in ends], [800, 3000], atol=250)
    np.testing.assert_allclose([end.end_ms for end in ends], [2000, 4200], atol=350)
    assert starts == {end.start_ms for end in ends}
    assert isinstance(found[0], Voiced)
    assert isinstance(found[-1], Silence)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 60_000), max_size=8))
def test_pieces_change_nothing(cuts: list[int]) -> None:
    audio = two_utterances(8000)
    edges = [0, *sorted(2 * cut for cut in cuts if 2 * cut < len(audio)), len(audio)]
    pieces = [audio[a:b] for a, b in itertools.pairwise(edges)]
    joined = [b"".join(p.pcm16 for p in heard(8000, ps) if isinstance(p, Voiced)) for ps in (pieces, [audio])]
    assert joined[0] == joined[1]


def test_times_of_pieces_grow() -> None:
    voiced = [piece for piece in heard(16_000, [two_utterances(16_000)]) if isinstance(piece, Voiced)]
    times = [piece.end_ms for piece in voiced]
    assert times == sorted(times)
    assert all(piece.start_ms < piece.end_ms for piece in voiced)


@pytest.mark.parametrize("audio", [b"", b"\0\0", pcm16(silence(16_000, 0.5))])
def test_nobody_speaks(audio: bytes) -> None:
    assert heard(16_000, [audio]) == []
