"""The command `upbeat`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from upbeat.v1.types_pb2 import ImageOptions, VoiceOptions

from clients import ask as asking
from clients import chat as chatting
from clients import demo as demonstration
from clients import hands_free, oneshot, options
from clients.client import DEFAULT_TARGET, Upbeat
from clients.errors import ClientError
from clients.explain import explain
from clients.launch import program
from clients.media import BadFile
from clients.options import Ahead, Certificate, Loras, Model, Server, Token, output, source

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="""A gateway that answers in text, speech and images, and starts before the question has ended.

    Two terminals are enough to try it: **upbeat serve** in one, **upbeat chat** in the other.
    Or see it all at once: **upbeat demo**.
    """,
)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except UnicodeEncodeError as error:  # the system hands over bytes that are no text as lone surrogates
        errors.print(f"{error.object[:40]!r} is not UTF-8", style="red", markup=False)
        raise SystemExit(1) from None


def connected(
    work: Callable[[Upbeat], Awaitable[None]], server: str, token: str, certificate: Path | None
) -> None:
    """Runs `work` with a connection; errors end the program with exit code 1 and say what to do."""
    credentials = options.trusting(certificate)

    async def run() -> None:
        async with Upbeat(server, token=token, credentials=credentials) as upbeat:
            await work(upbeat)

    try:
        asyncio.run(run())
    except ClientError as error:
        explain(error, server, errors)
    except BadFile as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        errors.print(what, style="red", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        errors.print("\nstopped" if console.is_terminal else "stopped")
    else:
        return
    raise typer.Exit(1)


# These two become another program, which alone knows its options, --help among them.
_ANOTHER = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(add_help_option=False, context_settings=_ANOTHER)
def serve(context: typer.Context) -> None:
    """Run the gateway. Models that are not named are the embedded ones."""
    _become("server", context.args)


@app.command(add_help_option=False, context_settings=_ANOTHER)
def verify(context: typer.Context) -> None:
    """Load a model folder, say what will be served, and compare a text model with transformers."""
    _become("pipelines.verify", context.args)


def _become(module: str, options: list[str]) -> None:
    command, environment = program(module)
    os.execve(command[0], [*command, *options], environment)


@app.command()
def chat(
    speak: Annotated[bool, typer.Option("--speak", help="Answers are spoken too, and kept as WAV.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Each answer comes with a picture.")] = False,
    draw_asked: Annotated[
        bool, typer.Option("--draw-asked", help="Pictures only where the text model asks for one.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for what is kept.", file_okay=False)
    ] = Path("chat"),
    ahead: Ahead = "prefill",
    record: Annotated[
        bool, typer.Option("--record", help="Keep how each prompt was typed, for `upbeat replay`.")
    ] = False,
    schema: Annotated[Path | None, source("A JSON schema that each answer follows.")] = None,
    regex: Annotated[str, typer.Option(help="A regular expression that each answer follows.")] = "",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, max=options.MAX_UINT32, help="An answer's tokens; default 256.")
    ] = None,
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Talk to the gateway; your prompt is on its way while you type.

    Example: **upbeat chat --speak --draw**

    Enter asks, Enter during an answer interrupts it, Ctrl-D leaves. Without a terminal each line of
    the input is a prompt: **echo "What is a boat?" | upbeat chat**, and an answer that fails or does not
    come to the end of its schema ends with exit code 1.
    """
    sampling = options.sampling(schema, regex, max_tokens)
    chosen = chatting.ChatOptions(speak, draw, draw_asked, out, options.mode(ahead), record, sampling)
    connected(lambda upbeat: chatting.chat(upbeat, console, chosen), server, token, ca)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", exists=True, dir_okay=False)],
    speed: Annotated[float, typer.Option(min=0.01, help="So many times as fast as it was typed.")] = 1.0,
    ahead: Ahead = "answer_ahead",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Type a recorded prompt again, and show what came when.

    Example: **upbeat chat --record**, then **upbeat replay chat/prompt-1.jsonl --ahead think_ahead**
    """
    mode = options.mode(ahead)
    connected(lambda upbeat: oneshot.replayed(upbeat, console, file, speed, mode), server, token, ca)


@app.command()
def say(
    text: Annotated[str, typer.Argument(help='What to say; "-" reads standard input while speaking.')],
    out: Annotated[Path, output("-o", "--out", metavar="FILE.wav", words="Where to write.")],
    voice: Annotated[str, typer.Option(help="A voice of the model.")] = "",
    rate: Annotated[float, typer.Option(help="Speed, 0.5 to 2.")] = 1.0,
    pitch: Annotated[float, typer.Option(help="Pitch, 0.5 to 2; 2 is an octave up.")] = 1.0,
    model: Model = "",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Speak a text into a WAV file.

    Example: **upbeat say "The boat is red." -o boat.wav**
    """
    how = VoiceOptions(voice=voice, rate=rate, pitch=pitch)
    connected(lambda upbeat: oneshot.say(upbeat, console, text, out, model, how), server, token, ca)


@app.command()
def draw(
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, output("-o", "--out", metavar="FILE.png", words="PNG, JPEG or WebP, by its name.")],
    steps: Annotated[
        int | None, typer.Option(min=1, max=options.MAX_UINT32, help="Denoising steps; default the model's.")
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Pixels, as 256x256; default the model's.")] = "",
    seed: Annotated[
        int, typer.Option(min=0, max=options.MAX_UINT64, help="The same seed gives the same image.")
    ] = 0,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the text, 0 to 30.")] = None,
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    scheduler: Annotated[str, typer.Option(help="One that upbeat models lists; default the model's.")] = "",
    cache: Annotated[str, typer.Option(help="Step caching: off, balanced or fast.")] = "off",
    start: Annotated[Path | None, source("An image to start from: PNG, JPEG or WebP.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far it may be left, above 0 to 1; default 0.8.")
    ] = None,
    control: Annotated[Path | None, source("An image to follow, where the model has a ControlNet.")] = None,
    control_strength: Annotated[
        float | None, typer.Option(help="How strongly it steers, above 0 to 1; default 1.")
    ] = None,
    lora: Loras = None,
    model: Model = "",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Draw a picture into a file, with a bar over the steps and previews.

    Example: **upbeat draw "a red boat on the water" -o boat.png --steps 20 --seed 7**

    From another picture: **upbeat draw "a blue boat on the water" -o blue.png --start boat.png**
    """
    width, height = options.size(size)
    image = ImageOptions(
        negative_prompt=negative,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        seed=seed,
        scheduler=scheduler,
        cache_level=options.cache(cache),
        init_image=options.reference("--start", start, "--strength", strength),
        control_image=options.reference("--control", control, "--control-strength", control_strength),
        loras=map(options.lora, lora or ()),
    )
    connected(lambda upbeat: oneshot.draw(upbeat, console, text, out, model, image), server, token, ca)


@app.command()
def hear(
    file: Annotated[Path, typer.Argument(metavar="FILE.wav", help="Mono, 16 bits, 8,000 to 48,000 Hz.")],
    model: Model = "",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Write down what is said in a WAV file.

    Example: **upbeat hear boat.wav**
    """
    connected(lambda upbeat: oneshot.hear(upbeat, console, file, model), server, token, ca)


@app.command()
def ask(
    file: Annotated[Path, typer.Argument(metavar="FILE.wav|-", help='A spoken question; "-": a microphone.')],
    out: Annotated[
        Path | None, output("-o", "--out", metavar="FILE.wav", words="Speak the answer into this file.")
    ] = None,
    ahead: Ahead = "prefill",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Ask aloud: the question is heard while it is spoken, then answered.

    Example: **upbeat ask question.wav -o answer.wav**

    "-" reads raw sound (16 bits, mono, 16,000 Hz) until you are silent:
    **arecord -q -f S16_LE -r 16000 | upbeat ask - -o answer.wav**
    """
    mode, path = options.mode(ahead), None if str(file) == "-" else file

    async def asked(upbeat: Upbeat) -> None:
        await asking.ask(upbeat, console, path, out, mode)

    connected(asked, server, token, ca)


@app.command()
def talk(
    out: Annotated[
        Path | None, output("-o", "--out", metavar="FILE", words="The voice into this file, not the output.")
    ] = None,
    ahead: Ahead = "answer_ahead",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Talk hands free: speak whenever you like, also while the answer comes; that ends it.

    Example: **arecord -q -f S16_LE -r 16000 | upbeat talk | aplay -q -f S16_LE -r 16000**

    Sound is raw (16 bits, mono, 16,000 Hz), from standard input to standard output; where that is a terminal
    answers are not spoken. Wear headphones: there is no echo cancellation, so that a loudspeaker interrupts
    itself. Ctrl-C or the end of the input ends it.
    """
    mode = options.mode(ahead)

    async def talked(upbeat: Upbeat) -> None:
        microphone = await asking.microphone()
        with contextlib.ExitStack() as stack:
            player = None if sys.stdout.isatty() else sys.stdout.buffer
            if out is not None:
                player = stack.enter_context(out.open("wb"))
            stack.enter_context(contextlib.suppress(asyncio.CancelledError))  # Ctrl-C, as one leaves
            await hands_free.converse(upbeat, errors, microphone, player, mode)

    connected(talked, server, token, ca)


@app.command()
def trace(
    out: Annotated[Path, output("-o", "--out", metavar="FILE.json", words="Where to write.")],
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long to look.")] = 5.0,
    picture: Annotated[Path | None, output("--svg", metavar="FILE.svg", words="A picture too.")] = None,
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Record every slice and preemption on the device, for ui.perfetto.dev.

    Example: **upbeat trace -o trace.json --seconds 10**

    For callers on the gateway's own machine, or tenants that its settings name.
    """
    connected(lambda upbeat: oneshot.trace(upbeat, console, seconds, out, picture), server, token, ca)


@app.command()
def models(server: Server = DEFAULT_TARGET, token: Token = "", ca: Certificate = None) -> None:
    """List what the gateway has loaded, with limits."""
    connected(lambda upbeat: oneshot.models(upbeat, console), server, token, ca)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.", file_okay=False)] = Path("demo"),
    server: Annotated[str, typer.Option(metavar="ADDR", help="Use this gateway, start none.")] = "",
    ahead: Ahead = "prefill",
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """One stream, three modalities: a prompt is typed and revised; text, speech and a picture come back."""
    mode, credentials = options.mode(ahead), options.trusting(ca)
    access = demonstration.Access(server, token, credentials) if server else None
    raise typer.Exit(demonstration.run(out, access, mode))


if __name__ == "__main__":
    main()
