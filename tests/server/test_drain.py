"""SIGTERM's way: NOT_SERVING first, running turns finish, nothing new begins."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc

from pipelines.messages import Done, FinishReason, TextRequest
from server.config import Config
from server.health import NOT_SERVING, SERVING
from tests.converse import Client, spoken
from tests.fakes import FakeLink, tokens
from tests.grpc_calls import details, refused
from tests.serving import serving

CONFIG = Config(listen="127.0.0.1:0", grace_s=5.0)


async def test_running_turns_finish_and_nothing_new_begins() -> None:
    link = FakeLink()
    async with serving(CONFIG, link) as (server, channel):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        busy, idle = Client(channel), Client(channel)
        for client in (busy, idle):
            await client.start()
        await busy.commit("Hi")
        await link.sees(lambda: bool(link.submitted(TextRequest)))
        drained = asyncio.create_task(server.drain())
        assert (await watch.read()).status == NOT_SERVING
        error = await idle.error()
        assert (error.code().name, details(error).reason) == ("UNAVAILABLE", "DRAINING")
        stub = gateway_pb2_grpc.TextServiceStub(channel)
        error = await refused(stub.GenerateText(pb.GenerateTextRequest(prompt="Hi")))
        assert (error.code().name, details(error).reason) == ("UNAVAILABLE", "DRAINING")
        assert not drained.done()
        job_id = link.submitted(TextRequest)[0].job_id
        link.emit(job_id, *tokens("one two", 1), Done(FinishReason.STOP))
        assert spoken(await busy.turn()) == "one two"
        assert (await busy.error()).code().name == "UNAVAILABLE"
        await drained


async def test_the_grace_ends() -> None:
    link = FakeLink()
    async with serving(Config(listen="127.0.0.1:0", grace_s=0.0), link) as (server, channel):
        call = gateway_pb2_grpc.TextServiceStub(channel).GenerateText(pb.GenerateTextRequest(prompt="Hi"))
        await link.sees(lambda: bool(link.submitted(TextRequest)))
        await server.drain()
        await server.stop()
        assert (await refused(call)).code().name in ("UNAVAILABLE", "CANCELLED")
    assert link.cancelled() == [1]
