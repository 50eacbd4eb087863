"""Hands free: our own voice asks, interrupts and asks again, and nobody presses anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
import soxr

from clients.client import Upbeat
from clients.events import Audio, Done, Event, Token, Transcript
from clients.talk import Talk

RATE = 16_000
LONG, SHORT = "Please tell me about the red boat.", "Good morning, how are you?"
SILENCE = bytes(2 * RATE * 7 // 10)


async def spoken(upbeat: Upbeat, text: str) -> bytes:
    """Said by the embedded voice, as a microphone gives it, and silence."""
    pieces = [event async for event in upbeat.synthesize(text) if isinstance(event, Audio)]
    sound = np.frombuffer(b"".join(piece.pcm16 for piece in pieces), "<i2").astype(np.float32)
    resampled = soxr.resample(sound, pieces[0].sample_rate, RATE)
    return bytes(resampled.clip(-32768, 32767).astype("<i2").tobytes()) + SILENCE


async def say(talk: Talk, pcm16: bytes) -> None:
    for at in range(0, len(pcm16), 3200):
        await talk.audio(pcm16[at : at + 3200])


async def events_until(talk: Talk, found: Callable[[Event], bool], then: bytes = b"") -> list[Event]:
    """A turn's events; `then` is said once one of them is as `found` says."""
    events: list[Event] = []
    async for event in talk:
        events.append(event)
        if then and found(event):
            await say(talk, then)
            then = b""
    return events


def turn(events: list[Event]) -> tuple[str, list[int], str, str]:
    """Its number, its events', what was understood, and how it ended."""
    heard = [event.text for event in events if isinstance(event, Transcript) and event.is_final]
    done = events[-1]
    assert isinstance(done, Done)
    number = done.turn_id.rpartition(".")[2]
    return number, [event.sequence for event in events], " ".join(heard), done.finish_reason


async def test_speech_interrupts_asks_again_and_ends(upbeat: Upbeat) -> None:
    asked, cut_in = await spoken(upbeat, LONG), await spoken(upbeat, SHORT)
    talking = upbeat.converse(
        modalities=("text", "speech"),
        partial_prompts="answer_ahead",
        audio_sample_rate=RATE,
        commit_on_silence=True,
        interrupt_on_speech=True,
    )
    async with asyncio.timeout(60), talking as talk:
        await say(talk, SILENCE + asked)
        first = await events_until(talk, lambda event: isinstance(event, Audio), cut_in)
        second = await events_until(talk, lambda _: False)
        await say(talk, SILENCE + cut_in)
        await talk.end()
        third = await events_until(talk, lambda _: False)
        rest = [event async for event in talk]
        assert (rest, talk.ended) == ([], True)
    turns = [turn(events) for events in (first, second, third)]
    assert [number for number, _, _, _ in turns] == ["1", "2", "3"]
    assert [reason for _, _, _, reason in turns] == ["interrupted", "stop", "stop"]
    for _, sequences, _, _ in turns:
        assert sequences == list(range(1, len(sequences) + 1))
    for (_, _, heard, _), words in zip(turns, ("Please tell me about", SHORT, "How are you?"), strict=True):
        assert words.lower() in heard.lower()
    for events in (first, second, third):
        assert isinstance(events[0], Transcript)
        assert (events[0].text, events[0].is_final) == ("", False)
    begun, final = second[0], next(e for e in second if isinstance(e, Transcript) and e.is_final)
    assert isinstance(begun, Transcript)
    assert begun.start_ms == final.start_ms
    np.testing.assert_allclose(begun.start_ms, len(SILENCE + asked) / 32, atol=200)
    assert any(isinstance(event, Token) for event in third)


@pytest.mark.parametrize("seconds", [3.0])
async def test_an_open_microphone_without_speech_begins_no_turn(upbeat: Upbeat, seconds: float) -> None:
    hiss = (np.random.default_rng(0).standard_normal(round(RATE * seconds)) * 1000).astype("<i2").tobytes()
    talking = upbeat.converse(audio_sample_rate=RATE, commit_on_silence=True, interrupt_on_speech=True)
    async with asyncio.timeout(30), talking as talk:
        await say(talk, SILENCE + hiss)
        await talk.end()
        assert [event async for event in talk] == []
        assert talk.ended
