"""`upbeat replay`, `say`, `draw`, `hear`, `trace` and `models`: one call each, with progress where that
is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1.types_pb2 import ImageOptions, Modality, VoiceOptions

from clients.answer import Answer
from clients.client import PartialPrompts, Upbeat
from clients.edits import EditScript, replay
from clients.events import Image, Thought, Transcript
from clients.media import MIMES, BadFile, read_wav, thumbnail, write_wav
from clients.screen import Layout, Screen, reuse, timings_table, work_table
from clients.standard_input import lines
from clients.timeline import summary, svg

PREVIEW_COLUMNS = 32
PIECE_S = 0.1


async def replayed(upbeat: Upbeat, console: Console, file: Path, speed: float, mode: PartialPrompts) -> None:
    """A recorded prompt typed again; shows the answer, the thoughts, the times and the work. Raises:
    ClientError, BadFile."""
    try:
        script = EditScript.load(file)
    except ValueError as error:
        raise BadFile(str(error)) from error
    loop = asyncio.get_running_loop()
    screen, answer = Screen(console, Layout.TEXT), Answer()
    async with upbeat.converse(partial_prompts=mode, thoughts=mode == "think_ahead") as talk:
        await replay(talk, script, speed)
        committed_s = loop.time()
        async for event in talk:
            now_s = loop.time() - committed_s
            if isinstance(event, Thought):
                console.print(f"[dim]{event.action}[/] {event.text}")
            answer.add(event, now_s)
            screen.show(event, answer, now_s)
        screen.end(answer, loop.time() - committed_s)
    if answer.done is not None:
        console.print(timings_table(answer))
        console.print(work_table(answer))
        console.print(reuse(answer), soft_wrap=True)


async def say(
    upbeat: Upbeat, console: Console, text: str, out: Path, model: str, voice: VoiceOptions
) -> None:
    """Text to a WAV file; "-" reads standard input line by line while it is spoken. Raises: ClientError."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    answer = Answer()
    source = lines() if text == "-" else text
    with console.status("speaking") as status:
        async for event in upbeat.synthesize(source, model=model, voice=voice):
            answer.add(event, loop.time() - began_s)
            status.update(f"speaking, {answer.audio_ms / 1000:.1f} s of sound")
    if not answer.audio_ms:
        raise BadFile("there was nothing to say")
    seconds = write_wav(out, answer.pcm16, answer.sample_rate)
    first = f"first sound after {answer.marks['first_audio']:.2f} s"
    words = f"{out}: {seconds:.1f} s of sound made in {answer.marks['total']:.1f} s, {first}"
    console.print(words, markup=False, soft_wrap=True)


async def draw(
    upbeat: Upbeat, console: Console, prompt: str, out: Path, model: str, options: ImageOptions
) -> None:
    """Text to an image file, with a bar over the steps and previews on a terminal.

    Raises: ClientError, BadFile.
    """
    options.mime = _mime(out)
    options.preview_every = 1 if console.is_terminal else 0
    if options.HasField("init_image") or options.HasField("control_image"):
        await _check_size(upbeat, options)
    bar = Progress(TextColumn("step {task.completed}/{task.total}"), BarColumn(), TimeElapsedColumn())
    task = bar.add_task("drawing", total=options.steps or None)
    image: Image | None = None
    with Live(bar, console=console, transient=True) as live:
        async for event in upbeat.draw(prompt, model=model, image=options):
            if not isinstance(event, Image):
                continue
            bar.update(task, completed=event.step, total=event.steps)
            if console.is_terminal and console.color_system is not None:
                live.update(Group(thumbnail(event.data, PREVIEW_COLUMNS), bar))
            image = event if event.final else image
    if image is None:
        raise BadFile("the server sent no image")
    await asyncio.to_thread(out.write_bytes, image.data)
    if console.is_terminal and console.color_system is not None:
        console.print(thumbnail(image.data, PREVIEW_COLUMNS))
    words = f"{out}: {image.width} x {image.height} pixels in {image.steps} steps"
    console.print(words, markup=False, soft_wrap=True)


async def _check_size(upbeat: Upbeat, options: ImageOptions) -> None:
    """Raises: BadFile where the images given are more than the gateway takes in one request."""
    length, most = options.ByteSize(), (await upbeat.models()).max_message_bytes
    if length > most:
        raise BadFile(
            f"--start and --control make {length:,} bytes, and this gateway takes {most:,} a request"
        )


def _mime(out: Path) -> str:
    mime = MIMES.get(out.suffix.lower())
    if mime is None:
        raise BadFile(f"{out}: the name must end in one of {', '.join(sorted(MIMES))}")
    return mime


async def hear(upbeat: Upbeat, console: Console, path: Path, model: str) -> None:
    """A WAV file to text: what is heard so far on a terminal, one line an utterance.

    Raises: ClientError, BadFile.
    """
    pcm16, sample_rate = read_wav(path)
    with console.status("listening") as status:
        async for event in upbeat.transcribe(_pieces(pcm16, sample_rate), sample_rate, model=model):
            if isinstance(event, Transcript) and event.is_final:
                console.print(event.text, markup=False, soft_wrap=True)
            elif isinstance(event, Transcript):
                status.update(Text(event.text))


async def _pieces(pcm16: bytes, sample_rate: int) -> AsyncIterator[bytes]:
    size = 2 * int(PIECE_S * sample_rate)
    for start in range(0, len(pcm16), size):
        yield pcm16[start : start + size]


async def models(upbeat: Upbeat, console: Console) -> None:
    """A table of what is loaded. Raises: ClientError."""
    loaded = (await upbeat.models()).models
    if not loaded:
        console.print("nothing is loaded yet")
        return
    table = Table()
    for column in ("model", "makes", "weights"):
        table.add_column(column, justify="right" if column == "weights" else "left", no_wrap=True)
    table.add_column("what it is and takes")
    for model in loaded:
        makes = Modality.Name(model.modality).removeprefix("MODALITY_").lower()
        weights = f"{model.parameters / 1e6:,.1f} M" if model.parameters else ""
        words = [model.family, "default" * model.is_default, "" if model.serving else "not serving"]
        table.add_row(model.name, makes, weights, "; ".join([*filter(None, words), limits(model)]))
    console.print(table)


def limits(model: gateway.Model) -> str:
    """What a model can take, in words."""
    words = []
    if model.context_tokens:
        words.append(f"{model.context_tokens:,} tokens")
    if model.voices:
        words.append("voices " + ", ".join(model.voices))
    if model.sample_rate:
        words.append(f"{model.sample_rate:,} Hz")
    if model.sizes:
        words.append(", ".join(f"{size.width}x{size.height}" for size in model.sizes))
    if model.max_steps:
        words.append(f"{model.default_steps} steps, at most {model.max_steps}")
    if model.schedulers:
        words.append("/".join(model.schedulers))
    if model.loras:
        words.append("add-ons " + ", ".join(model.loras))
    if model.control:
        words.append("follows a control image")
    if model.languages:
        words.append(", ".join(model.languages))
    return "; ".join(words)


async def trace(upbeat: Upbeat, console: Console, seconds: float, out: Path, picture: Path | None) -> None:
    """What the device does to a file, and to a picture if one is wanted. Raises: ClientError."""
    with console.status(f"watching the device for {seconds:g} s"):
        found = await upbeat.trace(seconds)
    await asyncio.to_thread(out.write_bytes, found)
    if picture is not None:
        await asyncio.to_thread(picture.write_text, svg(found, 0.0, seconds * 1000))
    words = f"{out}: {summary(found)}; open it in ui.perfetto.dev or chrome://tracing"
    console.print(words, markup=False, soft_wrap=True)
