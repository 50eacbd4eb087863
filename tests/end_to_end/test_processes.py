"""Two processes, and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from upbeat.v1.types_pb2 import ImageOptions, Sampling

from clients.client import Upbeat
from clients.errors import ClientError
from clients.events import Done, Image, Token
from tests.end_to_end.conftest import Start, children, server_pid

LONG = Sampling(max_tokens=1500, temperature=1.5)


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


async def ended(pid: int, within_s: float) -> None:
    """Waits for the end of any process, ours or not."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop.add_reader(descriptor, over.set)
    try:
        await asyncio.wait_for(over.wait(), within_s)
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def serving(address: str, within_s: float) -> None:
    """Watches the server's health until it serves."""
    async with asyncio.timeout(within_s), grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for reply in stub.Watch(health_pb2.HealthCheckRequest()):
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                return


async def exhaust(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        continue


async def test_the_gateway_loads_no_torch(address: str) -> None:
    gateway = server_pid(address)
    assert "libtorch" not in maps(gateway)
    assert "libtorch" in maps(children(gateway)[0])


async def test_ctrl_c_reaches_the_gateway_alone(address: str) -> None:
    """The device is not in the terminal's group: it ends when the gateway, having drained, says so."""
    gateway = server_pid(address)
    (device,) = children(gateway)
    assert os.getpgid(device) != os.getpgid(gateway)


async def test_a_killed_device_fails_its_streams_and_comes_back(upbeat: Upbeat, address: str) -> None:
    """Streams get UNAVAILABLE within a second, nothing hangs, and the server serves again by itself."""
    stream = upbeat.draw("a blue moon", image=ImageOptions(steps=150, preview_every=1))
    assert isinstance(await anext(stream), Image)
    async with upbeat.converse(modalities=("text", "image"), image=ImageOptions(steps=150)) as talk:
        await talk.append("Tell me about the sea.")
        await talk.commit()
        async for event in talk:
            if isinstance(event, Token):
                break
        (device,) = children(server_pid(address))
        os.kill(device, signal.SIGKILL)
        killed = time.monotonic()
        for each in (stream, aiter(talk)):
            with pytest.raises(ClientError) as caught:
                await exhaust(each)
            assert caught.value.code == "UNAVAILABLE"
        assert time.monotonic() - killed < 1.0

    await serving(address, 120.0)
    found = [event async for event in upbeat.generate("Hello", sampling=Sampling(max_tokens=5))]
    assert isinstance(found[-1], Done)


async def test_a_killed_gateway_leaves_no_orphan_and_a_stopped_one_drains(
    another_server: Start, tmp_path: Path
) -> None:
    async with another_server() as address:
        pid = server_pid(address)
        (device,) = children(pid)
        os.kill(pid, signal.SIGKILL)
        await ended(device, 5.0)
    async with another_server() as address, Upbeat(address) as upbeat:
        pid = server_pid(address)
        (device,) = children(pid)
        stream = upbeat.draw("a red star", image=ImageOptions(steps=20, preview_every=1))
        assert isinstance(await anext(stream), Image)
        os.kill(pid, signal.SIGTERM)
        rest = [event async for event in stream]
        assert isinstance(rest[-1], Done), "a running request finishes within the grace period"
        await ended(pid, 30.0)
        await ended(device, 30.0)
    log = (tmp_path / "log").read_text()
    assert "leaked" not in log, "nothing but the server's own lines"
    assert {"loading text", "stopped"} <= {
        json.loads(line)["event"] for line in log.splitlines() if "{" in line
    }
