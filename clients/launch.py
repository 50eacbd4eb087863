"""Starts `python -m server` as a child process and waits until it serves."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from clients.client import Upbeat
from clients.errors import ClientError

LISTENING = re.compile(rb"listening on (\S+:\d+)")
START_S = 120.0
STOP_S = 15.0
POLL_S = 0.1
TAIL_LINES = 12


class ServerFailed(Exception):
    """The server did not come up; the message ends with the last lines of its log."""


@asynccontextmanager
async def running_server(options: Sequence[str], log: Path, start_s: float = START_S) -> AsyncIterator[str]:
    """The address of a server that serves; it is stopped (SIGTERM, then SIGKILL) on leaving.

    options: command line of `python -m server`. log: where its output goes.
    Raises: ServerFailed, if it ends or does not serve within `start_s`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", *options, stdout=asyncio.subprocess.PIPE, stderr=output
        )
        try:
            async with asyncio.timeout(start_s):
                address = await _address(process)
                await _serving(address, process)
            drain = asyncio.create_task(_drain(process))
            yield address
            drain.cancel()
        except TimeoutError as error:
            raise ServerFailed(f"the server does not serve after {start_s:.0f} s\n{_tail(log)}") from error
        except _Ended as error:
            code = await process.wait()
            raise ServerFailed(f"the server ended with exit code {code}\n{_tail(log)}") from error
        finally:
            await _stop(process)


class _Ended(Exception):
    """The process is gone."""


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if found := LISTENING.search(line):
            return found.group(1).decode()
    raise _Ended


async def _serving(address: str, process: asyncio.subprocess.Process) -> None:
    async with Upbeat(address) as upbeat:
        while process.returncode is None:
            try:
                if await upbeat.health() == "SERVING":
                    return
            except ClientError as error:
                if not error.connection_lost:
                    raise
            await asyncio.sleep(POLL_S)
    raise _Ended


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
