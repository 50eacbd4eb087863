"""An error of the gateway's, told to people."""

from __future__ import annotations

from rich.console import Console

from clients.errors import ClientError


def explain(error: ClientError, server: str, console: Console) -> None:
    """Whose fault it is, which field, when to come back."""
    if error.connection_lost:
        console.print(f"There is no gateway at {server}.", style="red", markup=False)
        console.print("Start one with `upbeat serve`, or name another with --server HOST:PORT.", markup=False)
        return
    console.print(error.message, style="red", markup=False)
    if error.field and error.field not in error.message:
        console.print(f"The field at fault is {error.field}.", markup=False)
    if error.retry_after_s:
        console.print(f"Try again in {error.retry_after_s:.0f} s.", markup=False)
    console.print(f"({error.code}{', ' + error.reason if error.reason else ''})", style="dim", markup=False)
