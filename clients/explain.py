"""An error of the gateway's, told to people."""

from __future__ import annotations

import re

from rich.console import Console

from clients.errors import ClientError

# Fields of the wire, behind `start.` where there is one, and the option of the command that sets them.
OPTIONS = {
    "target": "--server",
    "token": "--token",
    "model": "--model",
    "sampling.json_schema": "--schema",
    "sampling.regex": "--regex",
    "sampling.max_tokens": "--max-tokens",
    "voice.voice": "--voice",
    "voice.rate": "--rate",
    "voice.pitch": "--pitch",
    "image.negative_prompt": "--negative",
    "image.width": "--size",
    "image.height": "--size",
    "image.steps": "--steps",
    "image.guidance": "--guidance",
    "image.scheduler": "--scheduler",
    "image.loras": "--lora",
    "image.init_image": "--start",
    "image.init_image.strength": "--strength",
    "image.control_image": "--control",
    "image.control_image.strength": "--control-strength",
}


def explain(error: ClientError, server: str, console: Console) -> None:
    """Whose fault it is, which option or field, when to come back."""
    if error.connection_lost:
        console.print(f"There is no gateway at {server}.", style="red", markup=False)
        reason = error.message.rpartition("last error: ")[2]
        console.print(f"({reason})", style="dim", markup=False, soft_wrap=True)
        words = (
            "Start one with `upbeat serve`, or name another with --server HOST:PORT; one with TLS wants --ca."
        )
        console.print(words, markup=False, soft_wrap=True)
        return
    console.print(error.message, style="red", markup=False, soft_wrap=True)
    option = option_of(error.field)
    if option:
        console.print(f"The option at fault is {option}.", markup=False)
    elif error.field and error.field not in error.message:
        console.print(f"The field at fault is {error.field}.", markup=False)
    if error.code == "UNAUTHENTICATED":
        console.print("Give it one with --token or in UPBEAT_TOKEN.", markup=False)
    if error.retry_after_s:
        console.print(f"Try again in {error.retry_after_s:.0f} s.", markup=False)
    console.print(f"({error.code}{', ' + error.reason if error.reason else ''})", style="dim", markup=False)


def option_of(field: str) -> str:
    """The option that sets the field of an error, as `image.loras[0].weight`; "" if none does."""
    path = re.sub(r"\[\d+\]", "", field.removeprefix("start."))
    while path and path not in OPTIONS:
        path = path.rpartition(".")[0]
    return OPTIONS.get(path, "")
