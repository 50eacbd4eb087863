"""grpc.health.v1: one entry a service, watchable."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.app import NEEDS, RunningServer
from server.config import Config
from server.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING
from tests.fakes import TEXT, FakeLink
from tests.serving import serving


def _ask(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


def _stub(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def test_each_service_has_an_entry(channel: grpc.aio.Channel) -> None:
    for service in ("", *NEEDS):
        assert (await _stub(channel).Check(_ask(service))).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
        await _stub(channel).Check(_ask("gone"))


async def test_a_watch_sees_the_device_go_and_come(
    running: RunningServer, channel: grpc.aio.Channel, link: FakeLink
) -> None:
    watch = _stub(channel).Watch(_ask("upbeat.v1.TextService"))
    statuses = [(await watch.read()).status]
    link.die()
    statuses.append((await watch.read()).status)
    link.revive()
    statuses.append((await watch.read()).status)
    assert statuses == [SERVING, NOT_SERVING, SERVING]
    watch.cancel()
    async with asyncio.timeout(5):
        while running.health.watchers:
            await _stub(channel).Check(_ask(""))


async def test_an_unknown_service_may_be_watched(channel: grpc.aio.Channel) -> None:
    watch = _stub(channel).Watch(_ask("gone"))
    assert (await watch.read()).status == SERVICE_UNKNOWN
    watch.cancel()


async def test_a_service_without_a_model_does_not_serve() -> None:
    async with serving(Config(listen="127.0.0.1:0"), FakeLink((TEXT,))) as (_, channel):
        statuses = {name: (await _stub(channel).Check(_ask(name))).status for name in ("", *NEEDS)}
    assert {name for name, status in statuses.items() if status == NOT_SERVING} == {
        "upbeat.v1.SpeechService",
        "upbeat.v1.ImageService",
    }
