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
from clients.media import play, read_wav, write_wav
from clients.screen import Layout, Screen, timings_table
from clients.talk import Talk

PIECE_S = 0.1
MICROPHONE_RATE = 16_000


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
        pieces, rate = _microphone(), MICROPHONE_RATE
    else:
        pcm16, rate = read_wav(path)
        pieces = _paced(pcm16, rate)
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
        speaking = asyncio.create_task(_speak(talk, pieces, answer if path is None else None))
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


async def _speak(talk: Talk, pieces: AsyncIterator[bytes], answer: Answer | None) -> float:
    """Sends the question; returns when it was complete. `answer`: where silence may have ended it before."""
    async for piece in pieces:
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


async def _paced(pcm16: bytes, rate: int) -> AsyncIterator[bytes]:
    """Each piece when it has been spoken."""
    loop = asyncio.get_running_loop()
    size, began_s = 2 * round(PIECE_S * rate), loop.time()
    for start in range(0, len(pcm16), size):
        piece = pcm16[start : start + size]
        await asyncio.sleep(began_s + (start + len(piece)) / 2 / rate - loop.time())
        yield piece


async def _microphone() -> AsyncIterator[bytes]:
    size = 2 * round(PIECE_S * MICROPHONE_RATE)
    while piece := await asyncio.to_thread(sys.stdin.buffer.read, size):
        yield piece
