"""The executor in this process, behind the link's interface."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from pipelines.device import CpuDevice
from pipelines.errors import DeviceLost, InvalidRequest, NotFound
from pipelines.messages import Chunk, Done, Input, JobClass, Request, TokenChunk
from server.executor.link import JobHandle, JobOrder
from server.executor.local_link import LocalLink
from server.executor.settings import DeviceSettings
from tests.server.executor.toy import ToyPipeline, request


def order(tokens: int = 3, pipeline: str = "toy") -> JobOrder:
    return JobOrder(pipeline, "s", "t", "local", JobClass.INTERACTIVE, request(tokens))


async def everything(handle: JobHandle) -> list[Chunk]:
    chunks: list[Chunk] = []
    while (chunk := await handle.get()) is not None:
        chunks.append(chunk)
        if isinstance(chunk, Done):
            return chunks
    return chunks


async def test_jobs_run_and_the_link_ends() -> None:
    toy = ToyPipeline()
    link = LocalLink({"toy": toy}, CpuDevice(1), DeviceSettings())
    ups: list[bool] = []
    link.on_change(ups.append)
    await link.start()
    assert [model.name for model in link.models] == ["toy"]
    handles = [link.submit(order()) for _ in range(4)]
    for handle in handles:
        chunks = await everything(handle)
        assert [type(chunk) for chunk in chunks] == [TokenChunk] * 3 + [Done]
    with pytest.raises(NotFound, match="nowhere"):
        link.submit(order(pipeline="nowhere"))
    with pytest.raises(InvalidRequest, match="max_tokens"):
        await link.submit(order(0)).get()
    await link.stop()
    assert ups == [True, False]
    assert sorted(toy.released) == [1, 2, 3, 4]
    with pytest.raises(DeviceLost):
        link.submit(order())


async def test_more_chunks_than_credits_come_as_they_are_read() -> None:
    link = LocalLink({"toy": ToyPipeline()}, CpuDevice(1), DeviceSettings())
    await link.start()
    chunks = await everything(link.submit(order(200)))
    assert len(chunks) == 201
    await link.stop()


async def test_a_cancelled_job_says_nothing_more() -> None:
    toy = ToyPipeline()
    link = LocalLink({"toy": toy}, CpuDevice(1), DeviceSettings())
    await link.start()
    handle = link.submit(order(1000))
    assert isinstance(await handle.get(), TokenChunk)
    handle.cancel()
    assert await handle.get() is None
    await everything(link.submit(order(1)))
    await link.stop()
    assert sorted(toy.released) == [1, 2]


async def test_a_trace_shows_the_slices() -> None:
    link = LocalLink({"toy": ToyPipeline()}, CpuDevice(1), DeviceSettings())
    await link.start()
    handle = link.submit(order(50))
    trace = await link.trace(0.01)
    await everything(handle)
    await link.stop()
    assert b"traceEvents" in trace


class Gated(ToyPipeline):
    """Notes whose jobs it prepares; the first waits until the gate opens."""

    def __init__(self) -> None:
        super().__init__("toy")
        self.gate = threading.Event()
        self.tenants: list[str] = []

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        self.tenants.append(tenant)
        self.gate.wait(10)
        return super().prepare(request, value)


async def test_tenants_are_prepared_in_turn() -> None:
    toy = Gated()
    link = LocalLink({"toy": toy}, CpuDevice(1), DeviceSettings())
    await link.start()
    handles = [link.submit(replace(order(), tenant=tenant)) for tenant in "aaab"]
    toy.gate.set()
    for handle in handles:
        await everything(handle)
    await link.stop()
    assert toy.tenants == list("abaa")
