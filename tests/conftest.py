"""One gateway on a real port for all end-to-end tests, over a fake device that each test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from server.app import RunningServer
from server.config import Config, Limits
from tests.fakes import Device, FakeLink

FAST = Config(listen="127.0.0.1:0", grace_s=5.0, limits=Limits(start_timeout_s=5.0))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running() -> AsyncIterator[RunningServer]:
    server = RunningServer(FAST, FakeLink())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def link(running: RunningServer) -> FakeLink:
    """The shared gateway's device, answering everything."""
    fake = running.gateway.link
    assert isinstance(fake, FakeLink)
    fake.reset(Device())
    return fake


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def channel(running: RunningServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as opened:
        yield opened
