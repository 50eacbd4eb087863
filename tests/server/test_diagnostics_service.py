"""TraceDevice on the wire: who may ask, for how long, and what comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc

from server.app import RunningServer
from server.config import Config, Tenant
from server.services.diagnostics import PART_BYTES, DiagnosticsService, is_here
from tests.fakes import Device, FakeClock, FakeLink
from tests.grpc_calls import refused
from tests.serving import serving


def ask(channel: grpc.aio.Channel, seconds: float, **options: Any) -> Any:
    request = pb.TraceDeviceRequest(seconds=seconds)
    return gateway_pb2_grpc.DiagnosticsServiceStub(channel).TraceDevice(request, **options)


async def test_a_trace_comes_in_parts(
    channel: grpc.aio.Channel, link: FakeLink, running: RunningServer
) -> None:
    link.traced = b"x" * (PART_BYTES + 5)
    parts = [part.json async for part in ask(channel, 0.1)]
    assert [len(part) for part in parts] == [PART_BYTES, 5]
    assert b"".join(parts) == link.traced


@pytest.mark.parametrize("seconds", [0.0, 0.05, 61.0, -1.0])
async def test_the_time_has_limits(channel: grpc.aio.Channel, link: FakeLink, seconds: float) -> None:
    error = await refused(ask(channel, seconds))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "0.1 to 60" in str(error.details())


class Caller:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer


async def test_one_trace_at_a_time_and_when_to_come_back(running: RunningServer) -> None:
    clock = FakeClock()
    service = DiagnosticsService(replace(running.gateway, clock=clock))
    caller: Any = Caller("unix:")
    first = [part async for part in service.TraceDevice(pb.TraceDeviceRequest(seconds=5), caller)]
    assert first
    clock.advance(2.0)
    with pytest.raises(Exception, match="another trace") as raised:
        await anext(service.TraceDevice(pb.TraceDeviceRequest(seconds=5), caller))
    assert raised.value.retry_after_s == pytest.approx(3.0)  # type: ignore[attr-defined]
    clock.advance(3.0)
    assert [part async for part in service.TraceDevice(pb.TraceDeviceRequest(seconds=5), caller)]


async def test_a_stranger_may_not_ask(running: RunningServer) -> None:
    service = DiagnosticsService(running.gateway)
    caller: Any = Caller("ipv4:192.0.2.7:4711")
    with pytest.raises(Exception, match="on this machine"):
        await anext(service.TraceDevice(pb.TraceDeviceRequest(seconds=1), caller))


async def test_only_named_tenants_may_ask_where_some_are_named() -> None:
    tenants = (Tenant(name="acme", token="a" * 16), Tenant(name="globex", token="b" * 16))
    config = Config(listen="127.0.0.1:0", tenants=tenants, diagnostics=("acme",))
    async with serving(config, FakeLink(script=Device())) as (_, channel):
        bearer = (("authorization", "Bearer " + "a" * 16),)
        assert [part.json async for part in ask(channel, 0.1, metadata=bearer)] == [b"{}"]
        error = await refused(ask(channel, 0.1, metadata=(("authorization", "Bearer " + "b" * 16),)))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("unix:", True),
        ("unix:/run/upbeat.sock", True),
        ("ipv4:127.0.0.1:5", True),
        ("ipv6:%5B::1%5D:5", True),
        ("ipv6:[::1]:5", True),
        ("ipv4:10.0.0.1:5", False),
        ("ipv6:%5B2001:db8::1%5D:5", False),
        ("strange", False),
    ],
)
def test_who_is_on_this_machine(peer: str, here: bool) -> None:
    assert is_here(peer) is here
