"""Standard input, so read that nobody waits for it who is told to stop.

Each read has a thread of its own that may be left behind: it holds no lock that the end of the program asks
for, as a read through sys.stdin does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator

from clients.media import BadFile

BLOCK = 1 << 16


async def pieces(size: int) -> AsyncIterator[bytes]:
    """What has come, at most `size` bytes at once, until the input ends. Raises: BadFile, OSError."""
    if sys.stdin is None:
        raise BadFile("there is no standard input")
    descriptor = sys.stdin.fileno()
    while piece := await _read(descriptor, size):
        yield piece


async def lines() -> AsyncIterator[str]:
    """Line by line, with their ends, as they come. Raises: BadFile where one is not UTF-8, OSError."""
    rest = b""
    async for piece in pieces(BLOCK):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield _text(line + b"\n")
    if rest:
        yield _text(rest)


async def _read(descriptor: int, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    read: asyncio.Future[bytes] = loop.create_future()

    def tell(result: bytes | OSError) -> None:
        if read.done():
            return
        if isinstance(result, bytes):
            read.set_result(result)
        else:
            read.set_exception(result)

    def work() -> None:
        result: bytes | OSError
        try:
            result = os.read(descriptor, size)
        except OSError as error:
            result = error
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=work, daemon=True).start()
    return await read


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadFile(f"standard input: not UTF-8 ({error.reason} in {line[:40]!r})") from error
