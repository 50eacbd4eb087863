"""Clients that misbehave, and a device that dies: a clear error each, and every other stream unharmed."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2

from pipelines.messages import Done, Down, FinishReason, Submit, TextRequest, TokenChunk
from server.config import Config, Limits
from tests.converse import Client
from tests.fakes import Device, FakeLink, tokens
from tests.grpc_calls import details, refused
from tests.serving import serving

HI = pb.GenerateTextRequest(prompt="Hi")


async def _works(channel: grpc.aio.Channel) -> None:
    stub = gateway_pb2_grpc.TextServiceStub(channel)
    events = [event async for event in stub.GenerateText(HI)]
    assert events[-1].done.finish_reason == types_pb2.FINISH_REASON_STOP


async def _abandoned(count: int) -> None:
    limits = Limits(start_timeout_s=0.3, streams=count + 10, streams_per_tenant=count + 5)
    async with serving(Config(listen="127.0.0.1:0", limits=limits), FakeLink(script=Device())) as (
        server,
        channel,
    ):
        stub = gateway_pb2_grpc.ConversationServiceStub(channel)
        calls = [stub.Converse() for _ in range(count)]
        for call in calls:
            await call.wait_for_connection()
        await _works(channel)
        codes = await asyncio.gather(*(call.code() for call in calls))
        assert {code.name for code in codes} == {"DEADLINE_EXCEEDED"}
        assert server.gateway.admission.open_streams == 0
        await _works(channel)


async def test_two_hundred_streams_opened_and_abandoned() -> None:
    await _abandoned(200)


@pytest.mark.slow
async def test_two_thousand_streams_opened_and_abandoned() -> None:
    await _abandoned(2000)


async def test_too_many_streams_of_one_tenant() -> None:
    limits = Limits(streams_per_tenant=2)
    link = FakeLink()
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (_, channel):
        stub = gateway_pb2_grpc.TextServiceStub(channel)
        calls = [stub.GenerateText(HI) for _ in range(2)]
        await link.sees(lambda: len(link.jobs) == 2)
        error = await refused(stub.GenerateText(HI))
        assert error.code().name == "RESOURCE_EXHAUSTED"
        assert details(error).reason == "EXHAUSTED"
        assert details(error).retry_after_s > 0
        for call in calls:
            call.cancel()
        await link.sees(lambda: len(link.cancelled()) == 2)


async def test_a_client_that_vanishes_in_mid_turn(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(None)
    client = Client(channel)
    await client.start(types_pb2.MODALITY_SPEECH, types_pb2.MODALITY_IMAGE)
    await client.commit("Hi")
    await link.sees(lambda: len([each for each in link.sent if isinstance(each, Submit)]) == 3)
    client.call.cancel()
    await link.sees(lambda: len(link.cancelled()) == 3)
    link.reset(Device())
    await _works(channel)


def _flood(link: FakeLink, message: Down) -> None:
    """32 MB of tokens for the one who asks for a flood; the usual for others."""
    if isinstance(message, Submit) and message.first is not None and "flood" in str(message.first):
        chunk = TokenChunk("x" * 16_384, (1,))
        link.emit(message.job_id, *[chunk] * 2000, Done(FinishReason.STOP))
    else:
        Device()(link, message)


async def test_a_client_that_stops_reading(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(_flood)
    client = Client(channel)
    await client.start()
    await client.commit("flood")
    await link.sees(lambda: bool(link.submitted(TextRequest)))
    job = link.jobs[link.submitted(TextRequest)[0].job_id]
    before, waiting = -1, len(job.waiting)
    while waiting != before:  # Whole turns of others pass without the device being granted more.
        for _ in range(10):
            await _works(channel)
        before, waiting = waiting, len(job.waiting)
    assert waiting > 1000
    assert len((await client.read()).token.text) == 16_384
    client.call.cancel()
    await link.sees(lambda: len(link.cancelled()) == 1)


async def test_a_client_that_never_reads_again_keeps_no_place(caplog: pytest.LogCaptureFixture) -> None:
    limits, link = Limits(idle_timeout_s=0.1), FakeLink(script=_flood)
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (server, channel):
        client = Client(channel)
        await client.start()
        await client.commit("flood")
        text = gateway_pb2_grpc.TextServiceStub(channel).GenerateText(pb.GenerateTextRequest(prompt="flood"))
        await text.read()
        await link.sees(lambda: len(link.cancelled()) == 2)
        assert server.gateway.admission.open_streams == 0
        assert (await client.error()).code().name == "DEADLINE_EXCEEDED"
        text.cancel()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_message_of_100_mb(running: object, channel: grpc.aio.Channel, link: FakeLink) -> None:
    request = pb.GenerateTextRequest(prompt="x" * 100_000_000)
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}", options=options) as own:  # type: ignore[attr-defined]
        error = await refused(gateway_pb2_grpc.TextServiceStub(own).GenerateText(request))
    assert error.code().name == "RESOURCE_EXHAUSTED"
    assert link.sent == []
    await _works(channel)


async def test_a_deadline_passes(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(None)
    error = await refused(gateway_pb2_grpc.TextServiceStub(channel).GenerateText(HI, timeout=0.2))
    assert error.code().name == "DEADLINE_EXCEEDED"
    await link.sees(lambda: len(link.cancelled()) == 1)
    assert 0 < link.submitted(TextRequest)[0].deadline_in_s <= 0.3


async def test_the_device_dies_in_mid_turn(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(None)
    client = Client(channel)
    await client.start()
    await client.commit("Hi")
    call = gateway_pb2_grpc.TextServiceStub(channel).GenerateText(HI)
    await link.sees(lambda: len(link.submitted(TextRequest)) == 2)
    link.die()
    for error in (await client.error(), await refused(call)):
        assert error.code().name == "UNAVAILABLE"
        assert details(error).reason == "DEVICE_LOST"
        assert details(error).retry_after_s == 2.0
    error = await refused(gateway_pb2_grpc.TextServiceStub(channel).GenerateText(HI))
    assert error.code().name == "UNAVAILABLE"
    link.revive()
    link.reset(Device())
    await _works(channel)


async def test_a_bug_of_ours_is_internal_and_tells_nothing(
    channel: grpc.aio.Channel, link: FakeLink, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(link: FakeLink, message: Down) -> None:
        raise RuntimeError("secret")

    link.reset(broken)
    error = await refused(gateway_pb2_grpc.TextServiceStub(channel).GenerateText(HI))
    assert (error.code().name, error.details()) == ("INTERNAL", "internal error")
    assert "secret" in caplog.text
    link.reset(Device())
    await _works(channel)


async def test_interrupted_on_the_wire(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(None)
    client = Client(channel)
    await client.start()
    await client.commit("Hi")
    await link.sees(lambda: bool(link.submitted(TextRequest)))
    job_id = link.submitted(TextRequest)[0].job_id
    link.emit(job_id, *tokens("one", 1))
    assert (await client.read()).token.text == "one"
    await client.say(interrupt=pb.InterruptTurn())
    done = await client.read()
    assert done.turn_done.finish_reason == types_pb2.FINISH_REASON_INTERRUPTED
    assert link.cancelled() == [job_id]
    await client.end()


async def test_resumed_on_the_wire(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(None)
    lost = Client(channel)
    ready = await lost.start(resume_window_ms=60_000)
    await lost.commit("Hi")
    await link.sees(lambda: bool(link.submitted(TextRequest)))
    job_id = link.submitted(TextRequest)[0].job_id
    for word in ("one", " two"):
        link.emit(job_id, *tokens(word, 1))
        seen = await lost.read()
    lost.call.cancel()
    client = Client(channel)
    resume = pb.ResumeTurn(session_id=ready.session_id, turn_id=seen.turn_id, last_sequence=1)
    await client.say(resume=resume)
    assert (await client.read()) == seen
    link.emit(job_id, *tokens(" three", 1), Done(FinishReason.STOP))
    rest = await client.turn()
    assert [event.sequence for event in rest] == [3, 4]
    assert link.cancelled() == []
    await client.end()


async def test_resuming_what_is_not_there(channel: grpc.aio.Channel, link: FakeLink) -> None:
    client = Client(channel)
    await client.say(resume=pb.ResumeTurn(session_id="x", turn_id="y"))
    error = await client.error()
    assert (error.code().name, details(error).field) == ("NOT_FOUND", "resume.session_id")
