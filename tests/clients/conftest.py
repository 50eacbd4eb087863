from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from clients.client import Upbeat
from tests.clients.scripted_gateway import Script, start


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def target(script: Script) -> AsyncIterator[str]:
    """Address of a scripted gateway."""
    server, address = await start(script)
    yield address
    await server.stop(None)


@pytest.fixture
async def upbeat(target: str) -> AsyncIterator[Upbeat]:
    async with Upbeat(target, token="secret") as client:
        yield client
