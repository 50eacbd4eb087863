"""Clients may ping an idle connection as often as the server says, and no oftener."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import app
from server.config import Config
from tests.fakes import FakeLink
from tests.serving import serving

PINGS_MS = 1_000  # The transport sends them no oftener.
PINGS = 4  # The third in too short a time is one too many.


async def _idles(port: int) -> None:
    """Watches something that does not change, over a connection that is pinged."""
    options = [
        ("grpc.keepalive_time_ms", PINGS_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        await asyncio.wait_for(watch.read(), PINGS * PINGS_MS / 1000)


async def test_pings_as_often_as_allowed_keep_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PING_INTERVAL_MS", PINGS_MS // 3)
    async with serving(Config(listen="127.0.0.1:0"), FakeLink()) as (server, _):
        with pytest.raises(TimeoutError):
            await _idles(server.port)


async def test_a_flood_of_pings_is_cut_off() -> None:
    assert app.PING_INTERVAL_MS <= 10_000
    async with serving(Config(listen="127.0.0.1:0"), FakeLink()) as (server, _):
        with pytest.raises(grpc.aio.AioRpcError, match="Too many pings"):
            await _idles(server.port)
