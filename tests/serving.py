"""A gateway of a test's own, on a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from server.app import RunningServer
from server.config import Config
from tests.fakes import FakeLink


@asynccontextmanager
async def serving(config: Config, link: FakeLink) -> AsyncIterator[tuple[RunningServer, grpc.aio.Channel]]:
    """Started, with a channel to it; stopped at the end."""
    server = RunningServer(config, link)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, channel
    finally:
        await server.stop()
