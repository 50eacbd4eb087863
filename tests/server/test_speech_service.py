"""SynthesizeSpeech and TranscribeSpeech on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2

from pipelines.messages import SpeechAudio, SpeechRequest, SpeechText, TranscribeRequest
from tests.fakes import FakeLink
from tests.grpc_calls import details, refused

Say, Hear = pb.SynthesizeSpeechRequest, pb.TranscribeSpeechRequest


async def _requests(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


def _start(**options: object) -> pb.SynthesizeSpeechRequest:
    return Say(start=pb.SynthesizeSpeechStart(unpaced=True, **options))  # type: ignore[arg-type]


def _append(text: str) -> pb.SynthesizeSpeechRequest:
    return Say(append=pb.AppendText(text=text))


def _hear(**options: object) -> pb.TranscribeSpeechRequest:
    return Hear(start=pb.TranscribeSpeechStart(**options))  # type: ignore[arg-type]


def _audio(data: bytes, sample_rate: int = 0) -> pb.TranscribeSpeechRequest:
    return Hear(audio=pb.AudioInput(pcm16=data, sample_rate=sample_rate))


async def test_text_streams_in_and_audio_out(channel: grpc.aio.Channel, link: FakeLink) -> None:
    stub = gateway_pb2_grpc.SpeechServiceStub(channel)
    voice = types_pb2.VoiceOptions(voice="bob", rate=1.5, sample_rate=16_000)
    call = stub.SynthesizeSpeech(_requests(_start(voice=voice), _append("Hello, "), _append("you.")))
    events = [event async for event in call]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    audio = [event.audio for event in events[:-1]]
    assert [piece.start_ms for piece in audio] == [0, 420]
    assert sum(len(piece.pcm16) for piece in audio) == 2 * 16 * 60 * len("Hello, you.")
    done = events[-1].done
    assert (done.finish_reason, done.usage.characters) == (types_pb2.FINISH_REASON_STOP, 11)
    (submit,) = link.submitted(SpeechRequest)
    assert submit.request == SpeechRequest("bob", 1.5, 1.0, 16_000)
    assert [each for each in link.inputs(submit.job_id) if isinstance(each, SpeechText)] == [
        SpeechText("Hello, ", False),
        SpeechText("you.", False),
        SpeechText("", True),
    ]


async def test_paced_audio_waits_for_the_listener(channel: grpc.aio.Channel, link: FakeLink) -> None:
    call = gateway_pb2_grpc.SpeechServiceStub(channel).SynthesizeSpeech()
    await call.write(Say(start=pb.SynthesizeSpeechStart()))
    await call.write(_append("x" * 10))  # 600 ms
    starts = []
    for _ in range(4):
        event = await call.read()
        assert isinstance(event, pb.SynthesizeSpeechResponse)
        starts.append(event.audio.start_ms)
    assert starts == [0, 100, 200, 300]
    await call.write(Say(playback=pb.PlaybackPosition(played_ms=400)))
    await call.done_writing()
    event = await call.read()
    assert isinstance(event, pb.SynthesizeSpeechResponse)
    assert event.audio.start_ms == 400
    call.cancel()


async def test_audio_streams_in_and_transcripts_out(channel: grpc.aio.Channel, link: FakeLink) -> None:
    stub = gateway_pb2_grpc.SpeechServiceStub(channel)
    call = stub.TranscribeSpeech(_requests(_hear(sample_rate=16_000, language="en"), _audio(b"\0\0" * 160)))
    events = [event async for event in call]
    assert [(e.transcript.text, e.transcript.is_final) for e in events[:-1]] == [
        ("good", False),
        ("good morning", True),
    ]
    assert events[-1].done.finish_reason == types_pb2.FINISH_REASON_STOP
    (submit,) = link.submitted(TranscribeRequest)
    assert submit.request == TranscribeRequest(16_000, "en", interim=True)
    assert link.inputs(submit.job_id) == [SpeechAudio(b"\0\0" * 160, False), SpeechAudio(b"", True)]


@pytest.mark.parametrize(
    ("requests", "code", "field"),
    [
        ([], "FAILED_PRECONDITION", ""),
        ([_append("x")], "FAILED_PRECONDITION", "start"),
        ([_start(model="gone")], "NOT_FOUND", "start.model"),
        ([_start(voice=types_pb2.VoiceOptions(pitch=3))], "INVALID_ARGUMENT", "start.voice.pitch"),
        (
            [_start(voice=types_pb2.VoiceOptions(sample_rate=50_000))],
            "INVALID_ARGUMENT",
            "start.voice.sample_rate",
        ),
        ([_start(), _start()], "FAILED_PRECONDITION", "start"),
        ([_start(), _append("x" * 200_001)], "INVALID_ARGUMENT", "append.text"),
    ],
)
async def test_bad_speech_requests(
    channel: grpc.aio.Channel, link: FakeLink, requests: list[object], code: str, field: str
) -> None:
    call = gateway_pb2_grpc.SpeechServiceStub(channel).SynthesizeSpeech(_requests(*requests))
    error = await refused(call)
    assert (error.code().name, details(error).field) == (code, field)


@pytest.mark.parametrize(
    ("requests", "code", "field"),
    [
        ([_audio(b"12")], "FAILED_PRECONDITION", "start"),
        ([_hear()], "INVALID_ARGUMENT", "start.sample_rate"),
        ([_hear(sample_rate=96_000)], "INVALID_ARGUMENT", "start.sample_rate"),
        ([_hear(sample_rate=16_000, language="xx")], "INVALID_ARGUMENT", "start.language"),
        ([_hear(sample_rate=16_000), _audio(b"123")], "INVALID_ARGUMENT", "audio.pcm16"),
        ([_hear(sample_rate=16_000), _audio(b"12", 8000)], "INVALID_ARGUMENT", "audio.sample_rate"),
        ([_hear(sample_rate=16_000), _hear(sample_rate=16_000)], "FAILED_PRECONDITION", "audio"),
    ],
)
async def test_bad_transcription_requests(
    channel: grpc.aio.Channel, link: FakeLink, requests: list[object], code: str, field: str
) -> None:
    link.reset(None)
    call = gateway_pb2_grpc.SpeechServiceStub(channel).TranscribeSpeech(_requests(*requests))
    error = await refused(call)
    assert (error.code().name, details(error).field) == (code, field)
