"""The outbox: bounded by credits, silent after discard, errors behind what came before them."""

from __future__ import annotations

import asyncio

import pytest

from pipelines.errors import DeviceLost, InvalidRequest
from pipelines.messages import Done, Failed, FinishReason, TokenChunk
from server.outbox import Outbox

A, B = TokenChunk("a", (1,)), TokenChunk("b", (2,))
DONE = Done(FinishReason.STOP)


async def test_chunks_come_in_order_and_give_credits_back() -> None:
    granted: list[int] = []
    outbox = Outbox(2, granted.append)
    for chunk in (A, B, DONE):
        outbox.put(chunk)
    assert [await outbox.get() for _ in range(3)] == [A, B, DONE]
    assert granted == [1, 1]
    assert outbox.ended


async def test_a_reader_waits_for_the_next_chunk() -> None:
    outbox = Outbox(2, lambda _: None)
    reader = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    assert not reader.done()
    outbox.put(A)
    assert await reader == A


async def test_after_discard_nothing_leaves() -> None:
    outbox = Outbox(2, lambda _: None)
    outbox.put(A)
    reader = asyncio.create_task(outbox.get())
    assert await reader == A
    waiting = asyncio.create_task(outbox.get())
    await asyncio.sleep(0)
    outbox.discard()
    outbox.put(B)
    assert await waiting is None
    assert await outbox.get() is None


async def test_a_failure_comes_behind_what_was_said() -> None:
    outbox = Outbox(2, lambda _: None)
    outbox.put(A)
    outbox.put(Failed("InvalidRequest", "image.width: too wide", "image.width"))
    outbox.fail(DeviceLost("late"))
    assert await outbox.get() == A
    with pytest.raises(InvalidRequest, match="too wide") as caught:
        await outbox.get()
    assert caught.value.field == "image.width"


async def test_chunks_behind_the_last_one_are_dropped() -> None:
    outbox = Outbox(2, lambda _: None)
    outbox.put(DONE)
    outbox.put(A)
    assert await outbox.get() == DONE
    assert len(outbox) == 0
