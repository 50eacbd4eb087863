"""SpeechService: text in and speech out, speech in and text out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc

from pipelines.errors import InvalidRequest, WrongState
from pipelines.messages import (
    AudioChunk,
    JobClass,
    SpeechAudio,
    SpeechText,
    TranscribeRequest,
    TranscriptChunk,
)
from server import streams
from server.auth import TENANT
from server.events import Event, TurnDone
from server.executor.link import JobOrder
from server.gateway import Gateway, new_id
from server.idle import Idle
from server.lanes import AudioLane, TranscriptLane
from server.listening import Arrivals, Listening
from server.pacing import Pacer
from server.services import encode, fields, options
from server.turn import Turn


class SpeechService(gateway_pb2_grpc.SpeechServiceServicer):
    """Speech out and speech in."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def SynthesizeSpeech(  # type: ignore[override]  # a coroutine that writes
        self, request_iterator: AsyncIterator[gateway_pb2.SynthesizeSpeechRequest], context: streams.Context
    ) -> None:
        gateway = self._gateway
        opening = await streams.first(request_iterator, gateway.config.limits.start_timeout_s)
        if not opening.HasField("start"):
            raise WrongState("the first message must be start", field="start")
        start = opening.start
        model = gateway.model("speech", start.model, "start.model")
        session_id = new_id()
        order = JobOrder(
            model.name,
            session_id,
            f"{session_id}.1",
            TENANT.get(),
            options.job_class(start.service, "start.service.", JobClass.REALTIME),
            options.voice(start.voice, "start.voice.", model),
            deadline_in_s=streams.deadline_in_s(context),
        )
        signal = asyncio.Event()
        turn = Turn(session_id, order.turn_id, gateway.clock.now(), signal.set)
        lane = AudioLane(gateway.dispatcher.submit(order), Pacer(math.inf) if start.unpaced else Pacer())
        turn.add(lane)
        turn.seal()
        await streams.one_turn(
            gateway,
            turn,
            signal,
            lambda event: context.write(_spoken(event)),
            lambda idle: self._read_text(request_iterator, lane, signal, idle),
        )

    async def TranscribeSpeech(  # type: ignore[override]  # a coroutine that writes
        self, request_iterator: AsyncIterator[gateway_pb2.TranscribeSpeechRequest], context: streams.Context
    ) -> None:
        gateway = self._gateway
        opening = await streams.first(request_iterator, gateway.config.limits.start_timeout_s)
        if not opening.HasField("start"):
            raise WrongState("the first message must be start", field="start")
        session_id = new_id()
        order = self._transcription(session_id, opening.start, streams.deadline_in_s(context))
        signal = asyncio.Event()
        turn = Turn(session_id, order.turn_id, gateway.clock.now(), signal.set)
        lane = TranscriptLane(gateway.dispatcher.submit(order))
        turn.add(lane)
        turn.seal()
        await streams.one_turn(
            gateway,
            turn,
            signal,
            lambda event: context.write(_transcribed(event)),
            lambda idle: self._read_audio(request_iterator, lane, opening.start.sample_rate, idle),
        )

    def _transcription(
        self, session_id: str, start: gateway_pb2.TranscribeSpeechStart, deadline_in_s: float
    ) -> JobOrder:
        """Raises: InvalidRequest, NotFound, Unsupported."""
        model = self._gateway.model("transcription", start.model, "start.model")
        if not start.sample_rate:
            raise InvalidRequest("start.sample_rate", "must be 8000 to 48000 Hz, not 0")
        rate = fields.sample_rate(start.sample_rate, "start.sample_rate")
        language = fields.one_of(start.language, "start.language", ("", *model.languages))
        return JobOrder(
            model.name,
            session_id,
            f"{session_id}.1",
            TENANT.get(),
            options.job_class(start.service, "start.service.", JobClass.REALTIME),
            TranscribeRequest(rate, language, interim=not start.final_only),
            deadline_in_s=deadline_in_s,
        )

    async def _read_text(
        self,
        requests: AsyncIterator[gateway_pb2.SynthesizeSpeechRequest],
        lane: AudioLane,
        signal: asyncio.Event,
        idle: Idle,
    ) -> None:
        limit = self._gateway.config.limits.prompt_chars
        total = 0
        async for request in requests:
            match request.WhichOneof("action"):
                case "append":
                    if request.append.text:
                        idle.touch()
                    total += len(request.append.text)
                    if total > limit:
                        raise InvalidRequest("append.text", f"at most {limit} characters in all, not {total}")
                    lane.work.update(SpeechText(request.append.text, final=False))
                case "playback":
                    now_s = self._gateway.clock.now()
                    lane.pacer.reported(request.playback.played_ms, now_s)
                    lane.tell(now_s)
                    signal.set()
                case action:
                    raise WrongState(
                        f"after start come append and playback, not {action}", field=action or ""
                    )
        idle.stop()
        lane.work.update(SpeechText("", final=True))

    async def _read_audio(
        self,
        requests: AsyncIterator[gateway_pb2.TranscribeSpeechRequest],
        lane: TranscriptLane,
        sample_rate: int,
        idle: Idle,
    ) -> None:
        listening = Listening("", Arrivals(sample_rate), self._gateway.config.limits.audio_s)
        async for request in requests:
            if not request.HasField("audio"):
                raise WrongState("after start comes audio", field="audio")
            pcm16 = request.audio.pcm16
            if len(pcm16) % 2:
                raise InvalidRequest(
                    "audio.pcm16", f"16-bit samples need an even number of bytes, not {len(pcm16)}"
                )
            if request.audio.sample_rate not in (0, sample_rate):
                raise InvalidRequest(
                    "audio.sample_rate", f"must stay {sample_rate}, not {request.audio.sample_rate}"
                )
            if pcm16:
                idle.touch()
                listening.arrived(len(pcm16), self._gateway.clock.now())
                lane.work.update(SpeechAudio(pcm16, final=False))
        idle.stop()
        lane.work.update(SpeechAudio(b"", final=True))


def _spoken(event: Event) -> gateway_pb2.SynthesizeSpeechResponse:
    wire = gateway_pb2.SynthesizeSpeechResponse(
        session_id=event.session_id, turn_id=event.turn_id, sequence=event.sequence
    )
    match event.body:
        case AudioChunk() as audio:
            wire.audio.CopyFrom(encode.audio(audio))
        case TurnDone() as done:
            wire.done.CopyFrom(encode.done(done))
    return wire


def _transcribed(event: Event) -> gateway_pb2.TranscribeSpeechResponse:
    wire = gateway_pb2.TranscribeSpeechResponse(
        session_id=event.session_id, turn_id=event.turn_id, sequence=event.sequence
    )
    match event.body:
        case TranscriptChunk() as transcript:
            wire.transcript.CopyFrom(encode.transcript(transcript))
        case TurnDone() as done:
            wire.done.CopyFrom(encode.done(done))
    return wire
