"""`upbeat chat`: the prompt travels while it is typed, the answer comes back as it is made.

On a terminal the line is sent as it changes, by appends and revisions at least 60 ms apart, so that the
server has read the prompt when Enter is pressed; Enter during an answer interrupts it. Where input is no
terminal, each line is one prompt, and a turn that fails is the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from upbeat.v1.types_pb2 import IMAGE_TRIGGER_ALWAYS, IMAGE_TRIGGER_MODEL, ImageOptions, Sampling

from clients.answer import Answer
from clients.client import ModalityName, PartialPrompts, Upbeat
from clients.edits import Prompting, Recorder
from clients.errors import ClientError
from clients.keys import PROMPT, Key, edit
from clients.media import SUFFIXES, play, write_wav
from clients.screen import Layout, Screen, reuse
from clients.standard_input import lines
from clients.talk import Talk

if TYPE_CHECKING:
    from clients.keyboard import Keyboard

SEND_EVERY_S = 0.06


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """draw: a picture with each answer. draw_asked: only where the text model asks for one. out: folder for
    sound, pictures and recorded prompts. ahead: what is done before Enter. record: keep how each prompt was
    typed. sampling: how answers are drawn and what they must follow."""

    speak: bool
    draw: bool
    draw_asked: bool
    out: Path
    ahead: PartialPrompts = "prefill"
    record: bool = False
    sampling: Sampling | None = None

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        wanted: tuple[ModalityName, ...] = ("text",)
        wanted += ("speech",) if self.speak else ()
        return wanted + (("image",) if self.draw or self.draw_asked else ())


async def chat(upbeat: Upbeat, console: Console, options: ChatOptions) -> None:
    """Turn by turn until the input ends. Raises: ClientError, BadFile."""
    trigger = IMAGE_TRIGGER_ALWAYS if options.draw else IMAGE_TRIGGER_MODEL
    image = ImageOptions(trigger=trigger) if "image" in options.modalities else None
    talking = upbeat.converse(
        modalities=options.modalities,
        image=image,
        sampling=options.sampling,
        partial_prompts=options.ahead,
    )
    async with talking as talk:
        turn, recorder = 0, Recorder(talk, asyncio.get_running_loop().time)
        with _keyboard(console) as keyboard:
            source = keyboard or lines()
            while await _ask(recorder, source):
                turn += 1
                if options.record:
                    options.out.mkdir(parents=True, exist_ok=True)
                    recorder.script.save(options.out / f"prompt-{turn}.jsonl")
                answer = await _answer(talk, console, keyboard)
                _keep(answer, console, options, turn)
                problem = _problem(answer, options)
                if problem is not None and keyboard is None:
                    raise problem
                if problem is not None:
                    console.print(f"[dim]{problem.code}[/]", end=" ")
                    console.print(problem.message, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _keyboard(console: Console) -> Iterator[Keyboard | None]:
    """The keyboard, where there is one."""
    if os.name != "posix" or sys.stdin is None or not sys.stdin.isatty() or not console.is_terminal:
        yield None
        return
    from clients.keyboard import Keyboard  # needs termios, which other systems lack

    with Keyboard() as keyboard:
        console.print("[dim]Your prompt is sent while you type. Enter asks, Ctrl-D leaves.[/]")
        yield keyboard


async def _ask(talk: Prompting, source: Keyboard | AsyncIterator[str]) -> bool:
    """Commits the next prompt; False if there is none."""
    if isinstance(source, AsyncIterator):
        async for line in source:
            if text := line.strip():
                await talk.commit(text)
                return True
        return False
    return await _typed(talk, source)


async def _typed(talk: Prompting, keyboard: Keyboard) -> bool:
    """A prompt that is sent while it is typed; False where the keyboard has none left."""
    sent = ""
    while True:
        keyboard.echo = not keyboard.ended
        while not keyboard.ended:
            await keyboard.change()
            if not keyboard.ended:
                sent = await _send(talk, sent, keyboard.line.text)
                await asyncio.sleep(SEND_EVERY_S)
        key, text, shown = keyboard.ended.popleft()
        if key is Key.END:
            return False
        if not shown:
            print(f"{PROMPT}{text}")
        sent = await _send(talk, sent, text)
        if text.strip():
            await talk.commit()
            return True


async def _send(talk: Prompting, sent: str, wanted: str) -> str:
    """Brings the prompt from `sent` to `wanted`, which it returns."""
    change = edit(sent, wanted)
    if change is not None:
        from_char, text = change
        await (talk.append(text) if from_char == len(sent) else talk.revise(from_char, text))
    return wanted


async def _answer(talk: Talk, console: Console, keyboard: Keyboard | None) -> Answer:
    """Gathers and shows one turn; Enter interrupts it."""
    loop = asyncio.get_running_loop()
    committed_s = loop.time()
    screen, answer = Screen(console, Layout.CHAT if keyboard else Layout.TEXT), Answer()

    async def interrupt(keys: Keyboard) -> None:
        await keys.enter()
        now_s = loop.time() - committed_s
        await talk.interrupt(round(max(0.0, answer.audio_ms - answer.ahead_ms(now_s))))

    watch = asyncio.create_task(interrupt(keyboard)) if keyboard else None
    async for event in talk:
        now_s = loop.time() - committed_s
        answer.add(event, now_s)
        screen.show(event, answer, now_s)
    screen.end(answer, loop.time() - committed_s)
    if watch is not None:
        watch.cancel()
    return answer


def _keep(answer: Answer, console: Console, options: ChatOptions, turn: int) -> None:
    """Writes sound and picture of a turn, plays the sound, tells how early the first token came."""
    if answer.audio_ms:
        path = options.out / f"answer-{turn}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, answer.pcm16, answer.sample_rate)
        played = play(path) if console.is_terminal else False
        console.print(f"[dim]{'playing' if played else 'wrote'} {path}[/]")
    if answer.image is not None:
        path = (options.out / f"image-{turn}").with_suffix(SUFFIXES[answer.image.mime])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(answer.image.data)
        console.print(f"[dim]wrote {path}[/]")
    if console.is_terminal and "first_token" in answer.marks:
        first = f"The first token came after {1000 * answer.marks['first_token']:.0f} ms"
        console.print(f"[dim]{first}, {reuse(answer)}[/]", soft_wrap=True)


def _problem(answer: Answer, options: ChatOptions) -> ClientError | None:
    """Why the turn is not what was asked for, unless the user ended it."""
    if answer.done is None:
        return ClientError("UNAVAILABLE", "the stream ended before the turn")
    bound = options.sampling is not None and bool(options.sampling.json_schema or options.sampling.regex)
    if bound and answer.done.finish_reason == "length":
        words = "the answer was cut before it was whole: it needs more tokens"
        return ClientError("OUT_OF_RANGE", words, field="sampling.max_tokens", reason="LENGTH")
    return answer.done.error
