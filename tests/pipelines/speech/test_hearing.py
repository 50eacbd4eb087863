"""Hearing: utterances in audio of any rate, however it is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pocketsphinx import Endpointer

from pipelines.contract import FloatArray
from pipelines.speech import hearing
from pipelines.speech.hearing import SAMPLE_RATE, Hearing, Silence, Voiced
from tests.pipelines.speech.vowels import pcm16, silence, vowels


def two_utterances(rate: int) -> bytes:
    return pcm16(silence(rate, 0.8), vowels(rate), silence(rate, 1.0), vowels(rate), silence(rate, 0.3))


def heard(rate: int, pieces: list[bytes], *, voices_only: bool = False) -> list[Voiced | Silence]:
    hearing = Hearing(rate, voices_only)
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


@pytest.mark.parametrize(("seconds", "rest_s"), [(0.12, 1.0), (0.15, 1.0), (0.25, 0.0)])
def test_a_short_word_is_an_utterance(seconds: float, rest_s: float) -> None:
    word = pcm16(silence(SAMPLE_RATE, 1.0), vowels(SAMPLE_RATE, seconds), silence(SAMPLE_RATE, rest_s))
    found = heard(SAMPLE_RATE, [word])
    end = found[-1]
    assert isinstance(end, Silence)
    assert abs(end.start_ms - 1000) <= 60
    assert 0 <= end.end_ms - 1000 - 1000 * seconds <= 250
    assert len(joined(found)) == 32 * (end.end_ms - end.start_ms)


def noise(seconds: float, loud: float, *, dies: bool = True) -> FloatArray:
    """Hiss, which dies away or ends at once."""
    count = round(SAMPLE_RATE * seconds)
    shape = np.linspace(1, 0, count) ** 2 if dies else np.ones(count)
    return (loud * shape * np.random.default_rng(count).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize("loud", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.03, 0.1, 0.2])
def test_a_click_or_a_puff_is_none(seconds: float, loud: float) -> None:
    audio = pcm16(silence(SAMPLE_RATE, 1.0), noise(seconds, loud), silence(SAMPLE_RATE, 1.0))
    assert heard(SAMPLE_RATE, [audio], voices_only=True) == []
    if seconds < 0.2:
        assert heard(SAMPLE_RATE, [audio]) == []


def test_hiss_and_keys_open_no_microphone() -> None:
    keys = [(noise(0.02, 0.3), silence(SAMPLE_RATE, gap)) for gap in (0.1, 0.05, 0.2, 0.08, 0.1, 0.06, 0.3)]
    fan = (silence(SAMPLE_RATE, 1.0), noise(3.0, 0.05, dies=False))
    for sound in (pcm16(*itertools.chain(*keys * 3)), pcm16(*fan)):
        assert heard(SAMPLE_RATE, [sound])
        assert heard(SAMPLE_RATE, [sound], voices_only=True) == []


def test_an_open_microphone_hears_the_same_of_voices() -> None:
    audio = two_utterances(SAMPLE_RATE)
    assert heard(SAMPLE_RATE, [audio], voices_only=True) == heard(SAMPLE_RATE, [audio])


def joined(found: list[Voiced | Silence]) -> bytes:
    return b"".join(piece.pcm16 for piece in found if isinstance(piece, Voiced))


def bursts(seed: int) -> bytes:
    """Ten stretches of vowels, each with its silence, of 20 to 600 ms."""
    lengths = np.random.default_rng(seed).uniform(0.02, 0.6, (10, 2))
    parts = [(vowels(SAMPLE_RATE, a), silence(SAMPLE_RATE, b)) for a, b in lengths]
    return pcm16(*itertools.chain(*parts), silence(SAMPLE_RATE, 1.0))


@pytest.mark.parametrize("seed", range(8))
def test_utterances_are_those_of_the_librarys_own_endpointer(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "SHORT", hearing.WINDOW)
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
