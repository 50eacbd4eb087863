"""What is around every RPC, in all four arities."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pipelines.errors import InvalidRequest
from server.config import Config
from server.gateway import build
from server.interceptors import CallInterceptor
from server.logs import JsonLines
from tests.fakes import FakeLink
from tests.grpc_calls import details

ARITIES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


async def _words(request: Any) -> list[bytes]:
    if isinstance(request, bytes):
        return [request]
    return [each async for each in request]


async def _answer(request: Any, context: Any) -> bytes:
    words = b" ".join(await _words(request))
    if b"bad" in words:
        raise InvalidRequest("word", "must not be bad")
    if b"bug" in words:
        raise ZeroDivisionError
    return words


async def _generate(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield await _answer(request, context)


HANDLERS: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler(_answer),
    "unary_stream": grpc.unary_stream_rpc_method_handler(_generate),
    "stream_unary": grpc.stream_unary_rpc_method_handler(_answer),
    "stream_stream": grpc.stream_stream_rpc_method_handler(_generate),
}


@pytest.fixture
async def own() -> AsyncIterator[tuple[CallInterceptor, grpc.aio.Channel]]:
    calls = CallInterceptor(build(Config(), FakeLink()))
    server = grpc.aio.server(interceptors=(calls,))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Words", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield calls, channel
    await server.stop(0)


async def _call(channel: grpc.aio.Channel, arity: str, *words: bytes) -> bytes:
    """One answer, whatever the arity. Raises: AioRpcError."""
    method: Any = getattr(channel, arity)(f"/test.Words/{arity}")
    call = method(iter(words) if arity.startswith("stream") else words[0])
    if arity.endswith("unary"):
        return bytes(await call)
    return b"".join([each async for each in call])


@pytest.mark.parametrize("arity", ARITIES)
async def test_answers_pass(own: tuple[CallInterceptor, grpc.aio.Channel], arity: str) -> None:
    calls, channel = own
    words = (b"a", b"b") if arity.startswith("stream") else (b"a",)
    assert await _call(channel, arity, *words) == b" ".join(words)
    assert not calls.running


@pytest.mark.parametrize("arity", ARITIES)
async def test_errors_are_mapped(own: tuple[CallInterceptor, grpc.aio.Channel], arity: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(own[1], arity, b"bad")
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert details(caught.value).field == "word"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _call(own[1], arity, b"bug")
    assert (caught.value.code().name, caught.value.details()) == ("INTERNAL", "internal error")


async def test_one_log_line_and_one_count_an_rpc(
    own: tuple[CallInterceptor, grpc.aio.Channel], caplog: pytest.LogCaptureFixture
) -> None:
    calls, channel = own
    with caplog.at_level(logging.INFO, "upbeat"):
        with pytest.raises(grpc.aio.AioRpcError):
            await _call(channel, "unary_unary", b"bad")
        async with asyncio.timeout(10):
            while not caplog.records:  # noqa: ASYNC110  # the client may know before the line is written
                await asyncio.sleep(0)
    (record,) = [each for each in caplog.records if each.getMessage() == "rpc"]
    line = json.loads(JsonLines().format(record))
    assert (line["method"], line["code"], line["tenant"]) == (
        "/test.Words/unary_unary",
        "INVALID_ARGUMENT",
        "local",
    )
    assert (line["error"], line["field"]) == ("word: must not be bad", "word")
    assert line["ms"] >= 0
    count = calls._gateway.metrics.registry.get_sample_value(
        "upbeat_rpcs_total", {"method": "/test.Words/unary_unary", "code": "INVALID_ARGUMENT"}
    )
    assert count == 1
