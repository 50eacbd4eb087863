"""The command `upbeat`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, get_args

import grpc
import typer
from rich.console import Console
from upbeat.v1.types_pb2 import CacheLevel, ImageOptions, VoiceOptions

from clients import ask as asking
from clients import chat as chatting
from clients import demo as demonstration
from clients import oneshot
from clients.client import DEFAULT_TARGET, PartialPrompts, Upbeat
from clients.errors import ClientError
from clients.explain import explain
from clients.media import BadFile

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

Server = Annotated[
    str, typer.Option(metavar="ADDR", envvar="UPBEAT_SERVER", help="Address of the gateway, host:port.")
]
Token = Annotated[str, typer.Option(envvar="UPBEAT_TOKEN", help="Bearer token, where the gateway wants one.")]
Certificate = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", envvar="UPBEAT_CA", help="Speak TLS, trusting this PEM file."),
]
Ahead = Annotated[
    str,
    typer.Option(help="What is done before the prompt is complete: off, prefill, answer_ahead, think_ahead."),
]
Model = Annotated[
    str, typer.Option(help="Which model; `upbeat models` lists them. Default: the server's own.")
]


def _mode(name: str) -> PartialPrompts:
    """Raises: typer.BadParameter."""
    for known in get_args(PartialPrompts):
        if name == known:
            mode: PartialPrompts = known
            return mode
    raise typer.BadParameter(f"--ahead: one of {', '.join(get_args(PartialPrompts))}, not {name!r}")


def main() -> None:
    """Entry point of the console script."""
    app()


def connected(
    work: Callable[[Upbeat], Awaitable[None]], server: str, token: str, certificate: Path | None
) -> None:
    """Runs `work` with a connection; errors end the program with exit code 1 and say what to do."""

    async def run(credentials: grpc.ChannelCredentials | None) -> None:
        async with Upbeat(server, token=token, credentials=credentials) as upbeat:
            await work(upbeat)

    try:
        trusted = certificate.read_bytes() if certificate else None
        asyncio.run(run(grpc.ssl_channel_credentials(trusted) if trusted else None))
    except ClientError as error:
        explain(error, server, errors)
    except BadFile as error:
        errors.print(str(error), style="red", markup=False)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        errors.print(what, style="red", markup=False)
    except KeyboardInterrupt:
        errors.print("stopped")
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
    os.execv(sys.executable, [sys.executable, "-m", module, *options])


@app.command()
def chat(
    speak: Annotated[bool, typer.Option("--speak", help="Answers are spoken too, and kept as WAV.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="Each answer comes with a picture.")] = False,
    draw_asked: Annotated[
        bool, typer.Option("--draw-asked", help="Pictures only where the text model asks for one.")
    ] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is kept.")] = Path("chat"),
    ahead: Ahead = "prefill",
    record: Annotated[
        bool, typer.Option("--record", help="Keep how each prompt was typed, for `upbeat replay`.")
    ] = False,
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Talk to the gateway; your prompt is on its way while you type.

    Example: **upbeat chat --speak --draw**

    Enter asks, Enter during an answer interrupts it, Ctrl-D leaves. Without a terminal each line of
    the input is a prompt: **echo "What is a boat?" | upbeat chat**
    """
    mode = _mode(ahead)
    options = chatting.ChatOptions(speak, draw, draw_asked, out, mode, record)
    connected(lambda upbeat: chatting.chat(upbeat, console, options), server, token, ca)


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
    mode = _mode(ahead)
    connected(lambda upbeat: oneshot.replayed(upbeat, console, file, speed, mode), server, token, ca)


@app.command()
def say(
    text: Annotated[str, typer.Argument(help='What to say; "-" reads standard input while speaking.')],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.wav", help="Where to write.")],
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
    options = VoiceOptions(voice=voice, rate=rate, pitch=pitch)
    connected(lambda upbeat: oneshot.say(upbeat, console, text, out, model, options), server, token, ca)


@app.command()
def draw(
    text: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE.png", help="PNG, JPEG or WebP, by its name.")
    ],
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; default the model's.")] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Pixels, as 256x256; default the model's.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same image.")] = 0,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the text, 0 to 30.")] = None,
    negative: Annotated[str, typer.Option(help="What not to draw.")] = "",
    scheduler: Annotated[str, typer.Option(help="One that upbeat models lists; default the model's.")] = "",
    cache: Annotated[str, typer.Option(help="Step caching: off, balanced or fast.")] = "off",
    model: Model = "",
    server: Server = DEFAULT_TARGET,
    token: Token = "",
    ca: Certificate = None,
) -> None:
    """Draw a picture into a file, with a bar over the steps and previews.

    Example: **upbeat draw "a red boat on the water" -o boat.png --steps 20 --seed 7**
    """
    width, height = _size(size)
    options = ImageOptions(
        negative_prompt=negative,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        seed=seed,
        scheduler=scheduler,
        cache_level=_cache(cache),
    )
    connected(lambda upbeat: oneshot.draw(upbeat, console, text, out, model, options), server, token, ca)


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
        Path | None, typer.Option("-o", "--out", metavar="FILE.wav", help="Speak the answer into this file.")
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
    mode, path = _mode(ahead), None if str(file) == "-" else file

    async def asked(upbeat: Upbeat) -> None:
        await asking.ask(upbeat, console, path, out, mode)

    connected(asked, server, token, ca)


@app.command()
def trace(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.json", help="Where to write.")],
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long to look.")] = 5.0,
    picture: Annotated[Path | None, typer.Option("--svg", metavar="FILE.svg", help="A picture too.")] = None,
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
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.")] = Path("demo"),
    server: Annotated[str, typer.Option(metavar="ADDR", help="Use this gateway, start none.")] = "",
    ahead: Ahead = "prefill",
) -> None:
    """One stream, three modalities: a prompt is typed and revised; text, speech and a picture come back."""
    raise typer.Exit(demonstration.run(out, server, _mode(ahead)))


def _size(size: str) -> tuple[int | None, int | None]:
    if not size:
        return None, None
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise typer.BadParameter(f"{size!r} is not WIDTHxHEIGHT, as 256x256", param_hint="--size")
    return int(width), int(height)


def _cache(name: str) -> CacheLevel.ValueType:
    if name not in ("off", "balanced", "fast"):
        raise typer.BadParameter(f"off, balanced or fast, not {name!r}", param_hint="--cache")
    return CacheLevel.Value(f"CACHE_LEVEL_{name.upper()}")


if __name__ == "__main__":
    main()
