"""`upbeat talk`: a conversation by voice alone, from a pipe of a microphone to a pipe of a player.

Rules:
  1. The microphone is sent all the time, as it comes; the server finds the turns in it.
  2. The voice goes out as it arrives, at the pace of speech and at most 0.4 s ahead of it; how much of it was
     heard the server reckons by the clock.
  3. The end of the input ends the conversation, once the last answer is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import BinaryIO

from rich.console import Console
from rich.status import Status
from rich.text import Text
from upbeat.v1.types_pb2 import VoiceOptions

from clients.answer import Answer
from clients.ask import MICROPHONE_RATE
from clients.client import PartialPrompts, Upbeat
from clients.errors import ClientError
from clients.events import Audio, Done, Transcript
from clients.screen import Layout, Screen
from clients.talk import Talk


async def converse(
    upbeat: Upbeat,
    console: Console,
    microphone: AsyncIterator[bytes],
    player: BinaryIO | None,
    mode: PartialPrompts,
) -> None:
    """Turn by turn until `microphone` (PCM16, mono, 16,000 Hz) ends. player: gets the voice at the same rate;
    None for text alone. Raises: ClientError, OSError (of the player)."""
    talking = upbeat.converse(
        modalities=("text",) if player is None else ("text", "speech"),
        voice=VoiceOptions(sample_rate=MICROPHONE_RATE),
        partial_prompts=mode,
        audio_sample_rate=MICROPHONE_RATE,
        commit_on_silence=True,
        interrupt_on_speech=True,
    )
    screen = Screen(console, Layout.CHAT)
    async with talking as talk:
        sending = asyncio.create_task(_send(talk, microphone))
        try:
            while not talk.ended:
                await _turn(talk, screen, player)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ClientError):
                await sending


async def _send(talk: Talk, microphone: AsyncIterator[bytes]) -> None:
    async for piece in microphone:
        await talk.audio(piece)
    await talk.end()


async def _turn(talk: Talk, screen: Screen, player: BinaryIO | None) -> None:
    """Your words as they are heard, the answer's as they come, and a line of times."""
    answer = Answer()
    with screen.console.status("listening") as status:
        async for event in talk:
            answer.add(event, 0.0)
            match event:
                case Transcript():
                    _heard(event, screen, status)
                case Audio() if player is not None:
                    status.stop()
                    await asyncio.to_thread(_play, player, event.pcm16)
                case Done():
                    screen.label("times", times(answer, event))
                    if event.error is not None:
                        screen.label("failed", event.error.message)
                case _:
                    status.stop()
                    screen.show(event, answer, 0.0)


def _play(player: BinaryIO, pcm16: bytes) -> None:
    player.write(pcm16)
    player.flush()


def _heard(event: Transcript, screen: Screen, status: Status) -> None:
    if event.is_final:
        screen.label("you", event.text)
    status.update(Text(event.text or "listening"))


def times(answer: Answer, done: Done) -> str:
    """What came when, after the last sound of what was said, and how the turn ended."""
    timings, parts = done.timings, []
    if timings.HasField("first_token_ms"):
        parts.append(f"first token {timings.first_token_ms:,.0f} ms")
    if timings.HasField("first_audio_ms"):
        parts.append(f"first sound {timings.first_audio_ms:,.0f} ms")
    if answer.audio_ms:
        parts.append(f"{answer.audio_ms / 1000:.1f} s of sound")
    return ", ".join([*parts, "complete" if done.finish_reason == "stop" else done.finish_reason])
