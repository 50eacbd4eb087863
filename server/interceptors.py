"""Around every RPC of all four arities: who calls, whether there is room, what to answer when it fails, one
log line and its metrics.

This is the gateway's one broad `except`: an unexpected error is logged with its traceback, and the client
learns INTERNAL and nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc

from pipelines.errors import UpbeatError
from server.auth import EXEMPT, TENANT, Authenticator
from server.gateway import Gateway
from server.logs import log
from server.services.status import code_of, message_of, trailing

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Any]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """`running` are the tasks of the RPCs that a drain waits for."""

    def __init__(self, gateway: Gateway) -> None:
        self.running: set[asyncio.Task[Any]] = set()
        self._gateway = gateway
        self._authenticator = Authenticator(gateway.config)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        codecs = (handler.request_deserializer, handler.response_serializer)
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(
                    self._answering(handler_call_details, handler.unary_unary), *codecs
                )
            case True, False:
                return grpc.stream_unary_rpc_method_handler(
                    self._answering(handler_call_details, handler.stream_unary), *codecs
                )
            case False, _:
                return grpc.unary_stream_rpc_method_handler(
                    self._streaming(handler_call_details, handler.unary_stream), *codecs
                )
            case _:
                return grpc.stream_stream_rpc_method_handler(
                    self._streaming(handler_call_details, handler.stream_stream), *codecs
                )

    def _answering(self, details: grpc.HandlerCallDetails, behaviour: Behaviour) -> Behaviour:
        async def wrapped(request: Any, context: Context) -> Any:
            async with self._call(details, context):
                return await behaviour(request, context)

        return wrapped

    def _streaming(self, details: grpc.HandlerCallDetails, behaviour: Behaviour) -> Behaviour:
        generates = inspect.isasyncgenfunction(behaviour)

        async def wrapped(request: Any, context: Context) -> None:
            async with self._call(details, context):
                if not generates:
                    await behaviour(request, context)
                    return
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        await context.write(response)

        return wrapped

    @asynccontextmanager
    async def _call(self, details: grpc.HandlerCallDetails, context: Context) -> AsyncIterator[None]:
        gateway = self._gateway
        method = _text(details.method)
        started_s = gateway.clock.now()
        line: dict[str, object] = {"method": method, "code": "OK"}
        try:
            async with self._admitted(method, details, context, line):
                yield
        except asyncio.CancelledError:
            remaining = context.time_remaining()
            late = remaining is not None and remaining <= 0
            line["code"] = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except grpc.aio.AbortError:
            line["code"] = str(context.code())
            raise
        except UpbeatError as error:
            line |= {"code": code_of(error).name, "error": message_of(error), "field": error.field}
            await _abort(context, error)
        except grpc.aio.InternalError:
            line["code"] = "CANCELLED"
            raise asyncio.CancelledError from None
        except Exception:
            line["code"] = "INTERNAL"
            logging.getLogger("upbeat").exception("unexpected error", extra={"fields": dict(line)})
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")
        finally:
            code = str(line["code"])
            gateway.metrics.rpc(method, code)
            if not method.startswith(EXEMPT):
                ms = round(1000 * (gateway.clock.now() - started_s), 1)
                log("rpc", line | {"peer": context.peer(), "ms": ms})

    @asynccontextmanager
    async def _admitted(
        self, method: str, details: grpc.HandlerCallDetails, context: Context, line: dict[str, object]
    ) -> AsyncIterator[None]:
        """Health and reflection take no place and hold up no drain. Raises: Unauthenticated, Exhausted."""
        peer: Any = context.auth_context()
        metadata: Any = details.invocation_metadata
        tenant = self._authenticator.tenant(method, metadata, peer)
        TENANT.set(tenant)
        if method.startswith(EXEMPT):
            yield
            return
        line["tenant"] = tenant
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        slot = self._gateway.admission.stream(tenant)
        self.running.add(task)
        try:
            yield
        finally:
            self.running.discard(task)
            slot.leave()


async def _abort(context: Context, error: UpbeatError) -> None:
    """The client may go before it has read what stands before the status."""
    try:
        await context.abort(code_of(error), message_of(error), trailing(error))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
