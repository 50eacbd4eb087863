"""`upbeat serve`, which becomes `python -m server`: the gateway with its device process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from pipelines.errors import InvalidRequest, UpbeatError
from server import logs
from server.app import serve
from server.config import Config, load

HELP = """Serve text, speech and images from one device over gRPC.

Without options the embedded models answer on 127.0.0.1:50051. Options override the settings file. Ctrl-C
or SIGTERM drains and stops.

    upbeat serve --text DIR --listen 127.0.0.1:7000

    upbeat serve --config upbeat.toml
"""


def folder(what: str) -> typer.models.OptionInfo:
    """An option that names a folder which exists."""
    option: typer.models.OptionInfo = typer.Option(exists=True, file_okay=False, metavar="DIR", help=what)
    return option


def main(
    text: Annotated[Path | None, folder("Hugging Face: Llama, Mistral, Qwen, Gemma, Mixtral.")] = None,
    image: Annotated[list[Path] | None, folder("diffusers; more than once for more.")] = None,
    speech: Annotated[Path | None, folder("Hugging Face: VITS.")] = None,
    recogniser: Annotated[Path | None, folder("Hugging Face: Moonshine.")] = None,
    thinker: Annotated[Path | None, folder("Second text model, which may think ahead.")] = None,
    draft: Annotated[
        str | None,
        typer.Option(metavar="DIR|none", help="Draft model for the text model; embedded with it."),
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="LoRA add-on; more than once for more.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT (port 0: any free one) or unix:PATH.")] = None,
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Settings, TOML.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Prometheus port on loopback; 0 for none.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the device; 0 for one a core.")] = None,
) -> None:
    try:
        settings = load(config) if config else Config()
        settings = override(
            settings,
            text,
            image or (),
            speech,
            lora or (),
            listen,
            metrics_port,
            threads,
            thinker,
            draft,
            recogniser,
        )
        logs.configure(settings.log_level)
        _run(settings)
    except UpbeatError as error:
        print(f"error: {error.message}", file=sys.stderr)
        raise typer.Exit(1) from None


def override(
    settings: Config,
    text: Path | None = None,
    images: Iterable[Path] = (),
    speech: Path | None = None,
    loras: Iterable[str] = (),
    listen: str | None = None,
    metrics_port: int | None = None,
    threads: int | None = None,
    thinker: Path | None = None,
    draft: str | None = None,
    recogniser: Path | None = None,
) -> Config:
    """The settings with the options that were given; raises as the settings do."""
    folders = {"text": text, "speech": speech, "recogniser": recogniser, "thinker": thinker}
    device: dict[str, object] = {name: str(path) for name, path in folders.items() if path is not None}
    if given := tuple(map(str, images)):
        device["images"] = given
    if added := dict(map(_named, loras)):
        device["loras"] = {**settings.device.loras, **added}
    if draft is not None:
        device["draft"] = draft
    if threads is not None:
        device["threads"] = threads
    changes: dict[str, object] = {"device": msgspec.structs.replace(settings.device, **device)}
    if listen is not None:
        changes["listen"] = listen
    if metrics_port is not None:
        changes["metrics"] = msgspec.structs.replace(settings.metrics, port=metrics_port)
    return msgspec.structs.replace(settings, **changes)


def _named(option: str) -> tuple[str, str]:
    """NAME=FILE. Raises: InvalidRequest."""
    name, equals, file = option.partition("=")
    if not (name and equals and file):
        raise InvalidRequest("--lora", f"NAME=FILE, not {option!r}")
    return name, file


def _run(settings: Config) -> None:
    from server.executor.process_link import ProcessLink

    async def run() -> None:
        await serve(settings, ProcessLink(settings.device))

    if sys.platform == "win32":
        asyncio.run(run())
    else:
        import uvloop

        uvloop.run(run())


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(help=HELP)(main)
    app(prog_name="upbeat serve")
