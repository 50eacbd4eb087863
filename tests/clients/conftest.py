from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clients.client import Upbeat
from tests.clients.node import install
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


@pytest.fixture(scope="session")
def node_client(pytestconfig: pytest.Config) -> Path:
    """The Node client, installed in pytest's cache."""
    assert pytestconfig.cache is not None
    return install(Path(pytestconfig.cache.mkdir("node")))
