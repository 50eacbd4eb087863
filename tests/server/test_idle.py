"""A stream on which nothing happens is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2

from pipelines.messages import Down, SpeechAudio, TranscriptChunk, Update
from server.config import Config, Limits
from server.idle import Idle
from tests.converse import Client, kinds
from tests.fakes import Device, FakeClock, FakeLink
from tests.grpc_calls import details
from tests.serving import serving

Result = TypeVar("Result")
ENDED = ("DEADLINE_EXCEEDED", "INTERNAL")
"""The latter is what grpc's client makes of the status where it was about to write."""


async def beside(ending: Awaitable[Result], *messages: Callable[[], Awaitable[None]]) -> Result:
    """What `ending` gives within a few seconds, while the messages are sent over and over."""
    waited = asyncio.ensure_future(ending)
    try:
        async with asyncio.timeout(5):
            while not waited.done():
                for send in messages:
                    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                        await send()
                await asyncio.wait([waited], timeout=0.01)
        return await waited
    finally:
        waited.cancel()


def test_expires_after_the_last_touch() -> None:
    clock, expired = FakeClock(), list[float]()

    def expire() -> bool:
        expired.append(clock.now())
        return len(expired) == 2

    idle = Idle(clock, 10.0, expire)
    start = clock.now()
    clock.advance(7)
    idle.touch()
    clock.advance(9)
    assert expired == []
    clock.advance(60)
    assert expired == [start + 17, start + 27]


def test_a_stopped_one_does_not() -> None:
    clock = FakeClock()
    called = [False]

    def expire() -> bool:
        called[0] = True
        return True

    Idle(clock, 10.0, expire).stop()
    clock.advance(60)
    assert called == [False]


async def test_a_conversation_that_was_left_open_is_ended() -> None:
    limits = Limits(idle_timeout_s=0.05)
    async with serving(Config(listen="127.0.0.1:0", limits=limits), FakeLink(script=Device())) as (
        _,
        channel,
    ):
        client = Client(channel)
        await client.start()
        error = await client.error()
        assert (error.code().name, details(error).reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")


async def test_reports_of_playback_and_empty_pieces_keep_no_decoder() -> None:
    limits, link = Limits(idle_timeout_s=0.1), FakeLink()
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (_, channel):
        client = Client(channel)
        await client.start(audio_sample_rate=16_000)
        await client.say(audio=pb.AudioInput(pcm16=bytes(320)))
        error = await beside(
            client.error(),
            lambda: client.say(playback=pb.PlaybackPosition()),
            lambda: client.say(audio=pb.AudioInput()),
            lambda: client.append(""),
        )
        assert error.code().name in ENDED
        await link.sees(lambda: link.cancelled() == [1])


def _noise(link: FakeLink, message: Down) -> None:
    """An ear that takes each piece for speech, and understands nothing."""
    if isinstance(message, Update) and isinstance(message.input, SpeechAudio):
        begun, silence = TranscriptChunk("", 0.0, False), TranscriptChunk("", 1.0, True)
        link.emit(message.job_id, begun, silence)


async def test_noise_keeps_no_open_microphone() -> None:
    limits, link = Limits(idle_timeout_s=0.1), FakeLink(script=_noise)
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (_, channel):
        client = Client(channel)
        await client.start(audio_sample_rate=16_000, commit_on_silence=True, interrupt_on_speech=True)
        error = await beside(client.error(), lambda: client.say(audio=pb.AudioInput(pcm16=bytes(320))))
        assert error.code().name in ENDED
        assert kinds(client.events) == ["ready", "transcript"]
        await link.sees(lambda: link.cancelled() == [1])


async def test_a_listener_who_stands_still_keeps_no_voice() -> None:
    limits, link = Limits(idle_timeout_s=0.3), FakeLink(script=Device("Hello there, friend. " * 20))
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (_, channel):
        client = Client(channel)
        await client.start(types_pb2.MODALITY_SPEECH)
        await client.commit("Hi")
        error = await beside(client.error(), lambda: client.say(playback=pb.PlaybackPosition(played_ms=0)))
        assert error.code().name in ENDED
        heard_ms = sum(len(event.audio.pcm16) / 32 for event in client.events)
        assert heard_ms < 5000, "of 25 seconds"


async def test_a_running_turn_is_not_idle() -> None:
    limits = Limits(idle_timeout_s=0.05)
    link = FakeLink()
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (_, channel):
        client = Client(channel)
        await client.start()
        await client.commit("Hi")
        await link.sees(lambda: bool(link.jobs))
        await asyncio.sleep(0.2)
        assert link.cancelled() == []
        client.call.cancel()


@pytest.mark.parametrize("method", ["SynthesizeSpeech", "TranscribeSpeech"])
async def test_a_stream_for_one_voice_that_was_left_open_is_ended(method: str) -> None:
    """Also where a player goes on reporting, or a microphone that is off sends empty pieces."""
    limits, link = Limits(idle_timeout_s=0.05), FakeLink()
    async with serving(Config(listen="127.0.0.1:0", limits=limits), link) as (_, channel):
        call: Any = getattr(gateway_pb2_grpc.SpeechServiceStub(channel), method)()
        if method == "SynthesizeSpeech":
            await call.write(pb.SynthesizeSpeechRequest(start=pb.SynthesizeSpeechStart()))
            empty: Any = pb.SynthesizeSpeechRequest(playback=pb.PlaybackPosition())
        else:
            await call.write(pb.TranscribeSpeechRequest(start=pb.TranscribeSpeechStart(sample_rate=16_000)))
            empty = pb.TranscribeSpeechRequest(audio=pb.AudioInput())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await beside(call.read(), lambda: call.write(empty))
        assert ended.value.code().name in ENDED
        await link.sees(lambda: link.cancelled() == [1])
