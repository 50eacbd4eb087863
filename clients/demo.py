"""Starts a server with the embedded models and holds one conversation with it: `upbeat demo`.

A prompt is typed piece by piece, one piece is revised, and text, speech and an image come back interleaved
over one stream. Writes answer.wav, image.png and server.log into demo/. Exit code 1 if anything is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich.console import Console

from clients.answer import Answer
from clients.client import ModalityName, PartialPrompts, Upbeat
from clients.errors import ClientError
from clients.explain import explain
from clients.launch import START_S, ServerFailed, running_server, serving
from clients.media import SUFFIXES, write_wav
from clients.screen import Screen, reuse, timings_table, work_table
from clients.talk import Talk

PAUSE_S = 0.35
TURN_S = 120.0
LISTEN = ("--listen", "127.0.0.1:0")
MODALITIES: tuple[ModalityName, ...] = ("text", "speech", "image")


@dataclass(frozen=True, slots=True)
class Keystrokes:
    """What is typed next: appended, or put in place of everything from `from_char` on."""

    text: str
    from_char: int | None = None


PROMPT = (
    Keystrokes("Please tell me about the green "),
    Keystrokes("boat on the "),
    Keystrokes("red boat on the water", from_char=len("Please tell me about the ")),
    Keystrokes(", and draw it "),
    Keystrokes("for me."),
)


@dataclass(frozen=True, slots=True)
class Access:
    """A gateway that runs already: its address, the token it wants, and TLS where `credentials` are."""

    server: str
    token: str = ""
    credentials: grpc.ChannelCredentials | None = None

    def connect(self) -> Upbeat:
        return Upbeat(self.server, token=self.token, credentials=self.credentials)


def run(out: Path, access: Access | None = None, ahead: PartialPrompts = "prefill") -> int:
    """The whole demo with that gateway, or with one of its own; returns the exit code."""
    console = Console(highlight=False)
    server = access.server if access is not None else ""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return asyncio.run(hold(console, out, access, ahead))
    except ServerFailed as error:
        console.print(f"\nThe demo failed: {error}", style="red", markup=False)
    except ClientError as error:
        console.print("\nThe demo failed.", style="red")
        explain(error, server, console)
    except TimeoutError:
        console.print(f"\nThe demo failed: it is not over after {TURN_S:.0f} s", style="red")
    except OSError as error:
        console.print(f"\nThe demo failed: {error.filename}: {error.strerror}", style="red", markup=False)
    except KeyboardInterrupt:
        console.print("\nstopped")
    return 1


async def hold(console: Console, out: Path, access: Access | None, ahead: PartialPrompts) -> int:
    """One conversation, shown on `console`; returns the exit code. Raises: ClientError, ServerFailed."""
    screen = Screen(console)
    console.print("[bold]Upbeat: one stream, three modalities[/]\n")
    async with (
        _connected(console, out, access) as upbeat,
        asyncio.timeout(TURN_S),
        upbeat.converse(modalities=MODALITIES, partial_prompts=ahead) as talk,
    ):
        await _type(talk, screen)
        answer = await _listen(talk, screen)
    return _report(console, screen, answer, out)


@contextlib.asynccontextmanager
async def _connected(console: Console, out: Path, access: Access | None) -> AsyncIterator[Upbeat]:
    """To the gateway given, or to one that runs as long as the demo does; ready to serve."""
    log = out / "server.log"
    what = f"waiting for {access.server}" if access else "starting the server with the embedded models"
    if not console.is_terminal:
        console.print(f"{what} ...")
    began_s = asyncio.get_running_loop().time()
    async with contextlib.AsyncExitStack() as stack:
        with console.status(what):
            where = "" if access else f", log in {log}"
            if access is None:
                access = Access(await stack.enter_async_context(running_server(LISTEN, log)))
            upbeat = await stack.enter_async_context(access.connect())
            async with asyncio.timeout(START_S):
                await serving(upbeat)
        took_s = asyncio.get_running_loop().time() - began_s
        console.print(f"The server is up after {took_s:.1f} s on {access.server}{where}\n")
        yield upbeat


async def _type(talk: Talk, screen: Screen) -> None:
    """Sends the prompt as a typist would."""
    prompt = ""
    for keys in PROMPT:
        if keys.from_char is None:
            await talk.append(keys.text)
            prompt += keys.text
        else:
            await talk.revise(keys.from_char, keys.text)
            prompt = prompt[: keys.from_char] + keys.text
        screen.label("typing" if keys.from_char is None else "revising", prompt)
        await asyncio.sleep(PAUSE_S)
    await talk.commit()
    screen.label("commit", "")


async def _listen(talk: Talk, screen: Screen) -> Answer:
    """Gathers and shows the turn."""
    loop = asyncio.get_running_loop()
    committed_s = loop.time()
    answer = Answer()
    async for event in talk:
        now_s = loop.time() - committed_s
        answer.add(event, now_s)
        screen.show(event, answer, now_s)
    screen.end(answer, loop.time() - committed_s)
    return answer


def _report(console: Console, screen: Screen, answer: Answer, out: Path) -> int:
    """Writes the files and the tables; returns the exit code."""
    console.print()
    if answer.audio_ms:
        seconds = write_wav(out / "answer.wav", answer.pcm16, answer.sample_rate)
        screen.label("wrote", f"{out / 'answer.wav'}, {seconds:.1f} s at {answer.sample_rate:,} Hz")
    if answer.image is not None:
        path = (out / "image").with_suffix(SUFFIXES[answer.image.mime])
        path.write_bytes(answer.image.data)
        screen.label("wrote", f"{path}, {answer.image.width} x {answer.image.height} pixels")
    console.print()
    console.print(timings_table(answer))
    console.print(work_table(answer))
    console.print(reuse(answer), soft_wrap=True)
    problems = [f"no {name} arrived" for name in answer.missing(MODALITIES)]
    if answer.done is None:
        problems.append("the stream ended before the turn")
    elif answer.done.finish_reason not in ("stop", "length"):
        problems.append(
            f"the turn ended with {answer.done.finish_reason}: {answer.done.error or 'no reason'}"
        )
    for problem in problems:
        console.print(f"The demo failed: {problem}", style="red", markup=False)
    return 1 if problems else 0
