"""Hearing: utterances in audio of any rate, however it is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pocketsphinx import Endpointer

from pipelines.speech.hearing import SAMPLE_RATE, Hearing, Silence, Voiced
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


def joined(found: list[Voiced | Silence]) -> bytes:
    return b"".join(piece.pcm16 for piece in found if isinstance(piece, Voiced))


def bursts(seed: int) -> bytes:
    """Ten stretches of vowels, each with its silence, of 20 to 600 ms."""
    lengths = np.random.default_rng(seed).uniform(0.02, 0.6, (10, 2))
    parts = [(vowels(SAMPLE_RATE, a), silence(SAMPLE_RATE, b)) for a, b in lengths]
    return pcm16(*itertools.chain(*parts), silence(SAMPLE_RATE, 1.0))


@pytest.mark.parametrize("seed", range(8))
def test_utterances_are_those_of_the_librarys_own_endpointer(seed: int) -> None:
    audio, right = bursts(seed), Endpointer(sample_rate=SAMPLE_RATE)
    spoken, ends = b"", []
    for at in range(0, len(audio) - right.frame_bytes, right.frame_bytes):
        before = right.in_speech
        spoken += right.process(audio[at : at + right.frame_bytes]) or b""
        if before and not right.in_speech:
            ends.append(Silence(round(1000 * right.speech_start), round(1000 * right.speech_end)))
    found = heard(SAMPLE_RATE, [audio])
    assert ends
    assert [piece for piece in found if isinstance(piece, Silence)] == ends
    assert joined(found) == spoken


def test_a_pause_shows_what_will_have_been_said() -> None:
    hearing, found, pauses = Hearing(SAMPLE_RATE), b"", set[bytes]()
    audio = pcm16(silence(SAMPLE_RATE, 0.5), vowels(SAMPLE_RATE), silence(SAMPLE_RATE, 1.0))
    for at in range(0, len(audio), 960):
        hearing.push(audio[at : at + 960], final=False)
        hearing.step()
        found += joined(list(hearing.found))
        hearing.found.clear()
        if hearing.pause:
            pauses.add(found + hearing.pause)
    assert pauses == {found}


def test_the_end_of_the_audio_leaves_what_silence_would_have_left() -> None:
    audio = pcm16(silence(SAMPLE_RATE, 0.5), vowels(SAMPLE_RATE), silence(SAMPLE_RATE, 1.0))
    whole = heard(SAMPLE_RATE, [audio])
    quiet = whole[-1].end_ms + 30
    for end_ms in (quiet, quiet + 120, quiet + 240):
        assert heard(SAMPLE_RATE, [audio[: 32 * end_ms]]) == whole


@pytest.mark.parametrize("gap_s", [0.2, 0.4])
def test_a_last_word_behind_a_short_gap_is_not_lost(gap_s: float) -> None:
    audio = pcm16(
        silence(SAMPLE_RATE, 0.5), vowels(SAMPLE_RATE), silence(SAMPLE_RATE, gap_s), vowels(SAMPLE_RATE, 0.2)
    )
    found = heard(SAMPLE_RATE, [audio])
    assert found[-1].end_ms == len(audio) // 32
    assert audio.endswith(joined(found))
