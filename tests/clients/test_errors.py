"""The server's own status reaches the caller, even where a write was under way when the call ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2

from clients.errors import DETAILS_KEY, ClientError, Ending, translated

CALLS = 200


async def refuse(requests: AsyncIterator[bytes], context: Any) -> None:
    await anext(aiter(requests))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="rate: 0.5 to 2.0, not 9")
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad", details)


async def end_well(requests: AsyncIterator[bytes], context: Any) -> None:
    await anext(aiter(requests))


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # the stubs know no base class
    def service(self, details: grpc.HandlerCallDetails) -> Any:
        handler: Any = refuse if details.method == "/test/refuse" else end_well
        return grpc.stream_stream_rpc_method_handler(handler)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def written(turns: int) -> AsyncIterator[bytes]:
    """A first message, and two more about when the server's refusal arrives."""
    yield b"start"
    for _ in range(turns):
        await asyncio.sleep(0)
    yield b"more"
    yield b"more"


async def our_code(channel: Any, method: str, turns: int) -> str:
    call: Any = channel.stream_stream(method)(written(turns))
    try:
        with translated(Ending(call)):
            async for _ in call:
                pass
    except ClientError as error:
        return error.code
    return "OK"


@pytest.mark.parametrize(("method", "code"), [("/test/refuse", "INVALID_ARGUMENT"), ("/test/end", "OK")])
async def test_a_write_that_fails_hides_no_status(channel: grpc.aio.Channel, method: str, code: str) -> None:
    assert {await our_code(channel, method, n % 10) for n in range(CALLS)} == {code}
