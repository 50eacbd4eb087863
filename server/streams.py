"""Running a gRPC stream: one place where reading, writing, cancelling and failing meet.

Rules (grpc.aio, each of them met in practice):
  1. CancelledError is never swallowed: the handler's task leaks otherwise.
  2. A handler that is blocked in `write` when the client goes sees grpc.aio.InternalError before
     CancelledError; the interceptor takes both for the client's leaving.
  3. Whatever ends a stream, its `finally` cancels its jobs.
  4. `write` is awaited for each event: the outboxes, not the transport, hold what the client does not read,
     for as long as a stream may be idle.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import grpc

from pipelines.errors import DeadlinePassed, WrongState
from server.clock import Clock
from server.events import Event
from server.gateway import Gateway
from server.idle import Idle
from server.meter import Meter
from server.turn import Turn

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")


class Source(Protocol):
    """Where a stream's events come from."""

    @property
    def ended(self) -> bool: ...

    def next(self, now_s: float) -> Event | None: ...

    def wait_s(self, now_s: float) -> float: ...


async def pump(
    source: Source, signal: asyncio.Event, clock: Clock, write: Callable[[Event], Awaitable[None]]
) -> None:
    """Writes events as they come until the source has ended; `signal` says that there may be one."""
    while not source.ended:
        signal.clear()
        now_s = clock.now()
        event = source.next(now_s)
        if event is not None:
            await write(event)
        elif not source.ended:
            await _wait(signal, source.wait_s(now_s), clock)


@asynccontextmanager
async def read_by_client(
    write: Callable[[Event], Awaitable[None]], clock: Clock, limit_s: float
) -> AsyncIterator[Callable[[Event], Awaitable[None]]]:
    """`write`, which ends what is done inside with DeadlinePassed where one event takes so long: the client
    does not read, and its jobs hold places."""
    guard = asyncio.timeout(None)
    writing = False

    def expired() -> bool:
        if writing:
            guard.reschedule(0.0)
        return writing

    idle = Idle(clock, limit_s, expired)

    async def watched(event: Event) -> None:
        nonlocal writing
        idle.touch()
        writing = True
        await write(event)
        writing = False

    try:
        async with guard:
            yield watched
    except TimeoutError:
        if not guard.expired():
            raise
        raise DeadlinePassed(f"nothing was read for {limit_s:g} s") from None
    finally:
        idle.stop()


async def duplex(read: Coroutine[Any, Any, None], write: Coroutine[Any, Any, None]) -> None:
    """Reads and writes until the writer is done or either fails; the first failure is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read)
            await write
            reader.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def first(requests: AsyncIterator[Request], timeout_s: float) -> Request:
    """A stream's first message. Raises: DeadlinePassed (an abandoned stream), WrongState (an empty one)."""
    try:
        async with asyncio.timeout(timeout_s):
            return await anext(requests)
    except TimeoutError:
        raise DeadlinePassed(f"the stream said nothing within {timeout_s:g} s of its opening") from None
    except StopAsyncIteration:
        raise WrongState("the stream ended before its first message") from None


def deadline_in_s(context: Context) -> float:
    """Seconds until the client's deadline for a JobOrder; 0 for none. Raises: DeadlinePassed."""
    remaining = context.time_remaining()
    if remaining is None or math.isinf(remaining):
        return 0.0
    if remaining <= 0:
        raise DeadlinePassed("the deadline has passed")
    return remaining


async def one_turn(
    gateway: Gateway,
    turn: Turn,
    signal: asyncio.Event,
    write: Callable[[Event], Awaitable[None]],
    read: Callable[[Idle], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """A whole RPC that is one turn: writes its events; cancels its jobs if it ends early. `read` touches the
    Idle with each message that says something, and stops it when no more will come: until then a stream on
    which neither side says anything is ended, since it holds a place among the jobs."""
    meter = Meter(gateway.metrics, gateway.clock)
    limit_s = gateway.config.limits.idle_timeout_s

    def expired() -> bool:
        turn.fail(DeadlinePassed(f"nothing was said for {limit_s:g} s"))
        return True

    idle = Idle(gateway.clock, limit_s, expired)

    try:
        async with read_by_client(write, gateway.clock, limit_s) as send:

            async def written(event: Event) -> None:
                await send(event)
                meter.wrote(event)
                idle.touch()

            writing = pump(turn, signal, gateway.clock, written)
            if read is None:
                idle.stop()
                await writing
            else:
                await duplex(read(idle), writing)
    finally:
        idle.stop()
        gateway.metrics.turn(turn.abandon(gateway.clock.now()))


async def _wait(signal: asyncio.Event, delay_s: float, clock: Clock) -> None:
    timer = None if math.isinf(delay_s) else clock.call_later(delay_s, signal.set)
    try:
        await signal.wait()
    finally:
        if timer is not None:
            timer.cancel()
