"""Hands free: our own voice asks, interrupts and asks again, and nobody presses anything."""

from __future__ import annotations

import asyncio
import io
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable

import numpy as np
import soxr
from rich.console import Console

from clients import hands_free
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


async def test_from_the_pipe_of_a_microphone_to_that_of_a_player_until_ctrl_c(
    upbeat: Upbeat, address: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.cli", "talk", "--server", address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    playing = asyncio.create_task(process.stdout.read())
    process.stdin.write(await spoken(upbeat, SHORT))
    async with asyncio.timeout(60):
        you, answer, times = [(await process.stderr.readline()).decode() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert (await process.wait(), await process.stderr.read()) == (0, b"")
    assert you == f"you {SHORT}\n"
    assert answer.strip()
    marks = r"times first token [\d,]+ ms, first sound [\d,]+ ms, [\d.]+ s of sound, complete\n"
    assert re.fullmatch(marks, times)
    assert np.abs(np.frombuffer(await playing, "<i2")).max() > 1000


async def test_an_open_microphone_without_speech_begins_no_turn(upbeat: Upbeat) -> None:
    hiss = (np.random.default_rng(0).standard_normal(3 * RATE) * 1000).astype("<i2").tobytes()

    async def microphone() -> AsyncIterator[bytes]:
        yield SILENCE
        for at in range(0, len(hiss), 3200):
            yield hiss[at : at + 3200]

    console, player = Console(file=io.StringIO()), io.BytesIO()
    async with asyncio.timeout(30):
        await hands_free.converse(upbeat, console, microphone(), player, "prefill")
    assert isinstance(console.file, io.StringIO)
    assert (console.file.getvalue(), player.getvalue()) == ("", b"")
