"""`upbeat ask`: a spoken question, sent as fast as it was spoken. What is heard is shown, and answered."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.text import Text
from upbeat.v1.types_pb2 import ServiceOptions

from clients.answer import Answer
from clients.client import ModalityName, PartialPrompts, Upbeat
from clients.events import Transcript
from clients.media import BadFile, play, read_wav, write_wav
from clients.screen import Layout, Screen, timings_table
from clients.standard_input import pieces
from clients.talk import Talk

PIECE_S = 0.1
MICROPHONE_RATE = 16_000
MICROPHONE = "`arecord -q -f S16_LE -r 16000 | upbeat ask -`"


async def ask(
    upbeat: Upbeat,
    console: Console,
    path: Path | None,
    out: Path | None,
    mode: PartialPrompts,
    service: ServiceOptions | None = None,
) -> Answer:
    """The question in a WAV file, at the pace it was spoken, or of a microphone (None: raw PCM16, mono,
    16,000 Hz, on standard input), where silence ends it. The answer is spoken into `out`, if there is one.

    Raises: ClientError, BadFile.
    """
    if path is None:
        sound, rate = await microphone(), MICROPHONE_RATE
    else:
        pcm16, rate = read_wav(path)
        if not pcm16:
            raise BadFile(f"{path}: there is no sound in it")
        sound = paced(pcm16, rate)
    modalities: tuple[ModalityName, ...] = ("text", "speech") if out is not None else ("text",)
    talking = upbeat.converse(
        modalities=modalities,
        service=service,
        partial_prompts=mode,
        audio_sample_rate=rate,
        commit_on_silence=path is None,
    )
    answer = Answer()
    async with talking as talk:
        speaking = asyncio.create_task(_speak(talk, sound, answer if path is None else None))
        try:
            await _show(talk, console, answer, speaking if path is not None else None)
        finally:
            speaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await speaking
    if answer.done is not None and answer.done.error is not None:
        raise answer.done.error
    if out is not None and answer.audio_ms:
        write_wav(out, answer.pcm16, answer.sample_rate)
        console.print(f"[dim]{'playing' if console.is_terminal and play(out) else 'wrote'} {out}[/]")
    console.print(timings_table(answer))
    return answer


async def _speak(talk: Talk, sound: AsyncIterator[bytes], answer: Answer | None) -> float:
    """Sends the question; returns when it was complete. `answer`: where silence may have ended it before."""
    async for piece in sound:
        await talk.audio(piece)
    if answer is None or not answer.heard:
        await talk.commit()
    return asyncio.get_running_loop().time()


async def _show(talk: Talk, console: Console, answer: Answer, speaking: asyncio.Task[float] | None) -> None:
    """What is heard and said. Times count from the end of `speaking`, or from when the question was
    understood where silence ends it."""
    loop = asyncio.get_running_loop()
    screen = Screen(console, Layout.CHAT)
    understood_s = loop.time()
    with console.status("listening") as status:
        async for event in talk:
            if isinstance(event, Transcript):
                answer.add(event, 0.0)
                status.update(Text(event.text))
                if event.is_final:
                    understood_s = loop.time()
                    screen.label("heard", event.text)
                continue
            status.stop()
            now_s = loop.time() - (speaking.result() if speaking and speaking.done() else understood_s)
            answer.add(event, now_s)
            screen.show(event, answer, now_s)
    screen.end(answer, answer.marks.get("total", 0.0))


async def paced(pcm16: bytes, rate: int) -> AsyncIterator[bytes]:
    """Each piece when it has been spoken."""
    loop = asyncio.get_running_loop()
    size, began_s = 2 * round(PIECE_S * rate), loop.time()
    for start in range(0, len(pcm16), size):
        piece = pcm16[start : start + size]
        await asyncio.sleep(began_s + (start + len(piece)) / 2 / rate - loop.time())
        yield piece


async def microphone() -> AsyncIterator[bytes]:
    """The sound on standard input, which has begun. Raises: BadFile where there is none."""
    if sys.stdin is not None and sys.stdin.isatty():
        raise BadFile(f"standard input is a terminal: pipe a microphone into it, as {MICROPHONE}")
    sound = _samples(pieces(2 * round(PIECE_S * MICROPHONE_RATE)))
    try:
        first = await anext(sound)
    except StopAsyncIteration:
        raise BadFile("standard input: there is no sound in it") from None
    return _from(first, sound)


async def _samples(raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole samples of two bytes; half a one at the end is left out."""
    half = b""
    async for piece in raw:
        half += piece
        whole = len(half) & ~1
        if whole:
            yield half[:whole]
        half = half[whole:]


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
