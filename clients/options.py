"""Options that several commands share, and what their words become on the wire.

What the server checks is left to it: `explain` names the option of the field that it refuses.
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, get_args

import grpc
import typer
from upbeat.v1.types_pb2 import CacheLevel, LoraWeight, ReferenceImage, Sampling

from clients.client import PartialPrompts

MAX_IMAGE_BYTES = 16 << 20
MAX_SCHEMA_BYTES = 4 * 65_536  # characters of at most four bytes
MAX_UINT32, MAX_UINT64 = (1 << 32) - 1, (1 << 64) - 1


def writable(path: Path | None) -> Path | None:
    """A file that is written when the work is done. Raises: typer.BadParameter, before it begins."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}")
    return path


def output(*names: str, metavar: str, words: str) -> typer.models.OptionInfo:
    """An option that names a file to write."""
    option: typer.models.OptionInfo = typer.Option(
        *names, metavar=metavar, help=words, dir_okay=False, writable=True, callback=writable
    )
    return option


def source(words: str) -> typer.models.OptionInfo:
    """An option that names a file to read."""
    option: typer.models.OptionInfo = typer.Option(metavar="FILE", help=words, exists=True, dir_okay=False)
    return option


Server = Annotated[
    str, typer.Option(metavar="ADDR", envvar="UPBEAT_SERVER", help="Address of the gateway, host:port.")
]
Token = Annotated[str, typer.Option(envvar="UPBEAT_TOKEN", help="Bearer token, where the gateway wants one.")]
Certificate = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        envvar="UPBEAT_CA",
        help="Speak TLS, trusting this PEM file.",
        exists=True,
        dir_okay=False,
    ),
]
Ahead = Annotated[
    str,
    typer.Option(help="What is done before the prompt is complete: off, prefill, answer_ahead, think_ahead."),
]
Model = Annotated[
    str, typer.Option(help="Which model; `upbeat models` lists them. Default: the server's own.")
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="NAME[:WEIGHT]",
        help="A LoRA add-on that `upbeat models` lists, weight -8 to 8, default 1; at most 8 of them.",
    ),
]


def trusting(certificate: Path | None) -> grpc.ChannelCredentials | None:
    """TLS by `--ca`. Raises: typer.BadParameter, OSError."""
    if certificate is None:
        return None
    trusted = certificate.read_bytes()
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=trusted.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        words = f"{certificate} holds no certificate in PEM"
        raise typer.BadParameter(words, param_hint="--ca") from error
    return grpc.ssl_channel_credentials(trusted)


def mode(name: str) -> PartialPrompts:
    """Of `--ahead`. Raises: typer.BadParameter."""
    for known in get_args(PartialPrompts):
        if name == known:
            found: PartialPrompts = known
            return found
    known_names = ", ".join(get_args(PartialPrompts))
    raise typer.BadParameter(f"one of {known_names}, not {name!r}", param_hint="--ahead")


def size(words: str) -> tuple[int | None, int | None]:
    """Width and height of `--size`; None for the model's own. Raises: typer.BadParameter."""
    if not words:
        return None, None
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", words, re.ASCII)
    if sides is None:
        raise typer.BadParameter(f"{words!r} is not WIDTHxHEIGHT, as 256x256", param_hint="--size")
    return int(sides[1]), int(sides[2])


def cache(name: str) -> CacheLevel.ValueType:
    """Of `--cache`. Raises: typer.BadParameter."""
    if name not in ("off", "balanced", "fast"):
        raise typer.BadParameter(f"off, balanced or fast, not {name!r}", param_hint="--cache")
    return CacheLevel.Value(f"CACHE_LEVEL_{name.upper()}")


def lora(words: str) -> LoraWeight:
    """Of one `--lora`; the weight stands behind the last colon. Raises: typer.BadParameter."""
    name, colon, weight = words.rpartition(":")
    try:
        add_on = LoraWeight(name=name, weight=float(weight)) if colon else LoraWeight(name=words)
    except ValueError:
        add_on = LoraWeight()
    if not add_on.name:
        raise typer.BadParameter(f"{words!r} is not NAME or NAME:WEIGHT, as ink:0.8", param_hint="--lora")
    return add_on


def reference(option: str, file: Path | None, second: str, strength: float | None) -> ReferenceImage | None:
    """The image in the file that `option` names, as strong as `second` says.

    Raises: typer.BadParameter, OSError.
    """
    if file is None:
        if strength is not None:
            raise typer.BadParameter(f"it wants {option} FILE too", param_hint=second)
        return None
    return ReferenceImage(data=_read(option, file, MAX_IMAGE_BYTES), strength=strength)


def sampling(schema: Path | None, regex: str, max_tokens: int | None) -> Sampling:
    """What an answer must follow. Raises: typer.BadParameter, OSError."""
    json_schema = ""
    if schema is not None:
        try:
            json_schema = _read("--schema", schema, MAX_SCHEMA_BYTES).decode()
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"{schema} is not UTF-8", param_hint="--schema") from error
        if not json_schema.strip():
            raise typer.BadParameter(f"{schema} is empty", param_hint="--schema")
    return Sampling(json_schema=json_schema, regex=regex, max_tokens=max_tokens)


def _read(option: str, file: Path, most: int) -> bytes:
    """Raises: typer.BadParameter where the file has more than `most` bytes, OSError."""
    with file.open("rb") as opened:
        data = opened.read(most + 1)
    if len(data) > most:
        raise typer.BadParameter(f"{file} has more than {most:,} bytes", param_hint=option)
    return data
