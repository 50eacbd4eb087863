"""Starts the server that lies beside this package as a child process and waits until it serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from clients.client import Upbeat
from clients.errors import ClientError

ROOT = Path(__file__).parents[1]
LISTENING = re.compile(rb"listening on (\S+:\d+)")
START_S = 240.0
STOP_S = 15.0
POLL_S = 0.1
TAIL_LINES = 12


class ServerFailed(Exception):
    """The server did not come up; the message ends with the last lines of its log."""


def program(module: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a module beside this package, which what lies in the working folder
    under the same name is not taken for."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return [sys.executable, "-P", "-m", module], os.environ | {"PYTHONPATH": path}


@contextlib.asynccontextmanager
async def running_server(options: Sequence[str], log: Path, start_s: float = START_S) -> AsyncIterator[str]:
    """The address of a server that serves; it is stopped (SIGTERM, then SIGKILL) on leaving.

    options: command line of `python -m server`. log: where its output goes.
    Raises: ServerFailed, if it ends or does not serve within `start_s`.
    """
    command, environment = program("server")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, *options, env=environment, stdout=asyncio.subprocess.PIPE, stderr=output
        )
        try:
            address = await _start(process, log, start_s)
            drain = asyncio.create_task(_drain(process))
            yield address
            drain.cancel()
        finally:
            await _stop(process)


async def _start(process: asyncio.subprocess.Process, log: Path, start_s: float) -> str:
    """The address of the server, once it serves."""
    try:
        async with asyncio.timeout(start_s):
            address = await _address(process)
            async with Upbeat(address) as upbeat:
                await serving(upbeat, lambda: process.returncode is None)
            return address
    except TimeoutError as error:
        raise ServerFailed(f"the server does not serve after {start_s:.0f} s\n{_tail(log)}") from error
    except (_Ended, ClientError) as error:
        with contextlib.suppress(TimeoutError):  # a signal now would hide the exit code of one that is ending
            await asyncio.wait_for(process.wait(), STOP_S)
        await _stop(process)
        raise ServerFailed(f"the server ended with exit code {process.returncode}\n{_tail(log)}") from error


class _Ended(Exception):
    """The process has closed its output: it is gone, or about to."""


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if found := LISTENING.search(line):
            return found.group(1).decode()
    raise _Ended


async def serving(upbeat: Upbeat, alive: Callable[[], bool] = lambda: False) -> None:
    """Waits until the gateway serves; one that cannot be reached is waited for while `alive`.

    Raises: ClientError.
    """
    while True:
        try:
            if await upbeat.health() == "SERVING":
                return
        except ClientError as error:
            if not (error.connection_lost and alive()):
                raise
        await asyncio.sleep(POLL_S)


async def _drain(process: asyncio.subprocess.Process) -> None:
    """A full pipe would stop the server."""
    assert process.stdout is not None
    while await process.stdout.read(65_536):
        continue


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
