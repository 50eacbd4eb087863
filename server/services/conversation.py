"""ConversationService: the full-duplex stream, between the wire and the session."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2

from pipelines.errors import InvalidRequest, WrongState
from pipelines.messages import AudioChunk, TokenChunk, TranscriptChunk
from server import streams
from server.attachment import Attachment
from server.auth import TENANT
from server.events import Discarded, Event, ImagePart, Ready, Thought, TurnDone
from server.gateway import Gateway
from server.idle import Idle
from server.meter import Meter
from server.plan import Plan
from server.services import encode, fields
from server.services.start import plan
from server.session import Session

LINGER_S = 0.05  # A lost stream looks like the end of the requests until, a moment later, it is cancelled.


class ConversationService(gateway_pb2_grpc.ConversationServiceServicer):
    """One Converse stream holds one session."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Converse(  # type: ignore[override]  # a coroutine that writes
        self, request_iterator: AsyncIterator[gateway_pb2.ConverseRequest], context: streams.Context
    ) -> None:
        gateway = self._gateway
        opening = await streams.first(request_iterator, gateway.config.limits.start_timeout_s)
        attachment = self._attach(opening)
        meter = Meter(gateway.metrics, gateway.clock)
        limit_s = gateway.config.limits.idle_timeout_s
        idle = Idle(gateway.clock, limit_s, lambda: attachment.expire(limit_s, gateway.clock.now()))

        try:
            deadline_in_s = streams.deadline_in_s(context)
            attachment.session.deadline_s = gateway.clock.now() + (deadline_in_s or math.inf)
            sending = streams.read_by_client(
                lambda event: context.write(response(event)), gateway.clock, limit_s
            )
            async with sending as send:

                async def write(event: Event) -> None:
                    await send(event)
                    meter.wrote(event)
                    idle.touch()

                await streams.duplex(
                    _read(request_iterator, attachment, meter, idle),
                    streams.pump(attachment, attachment.signal, gateway.clock, write),
                )
        finally:
            idle.stop()
            gateway.sessions.detach(attachment)

    def _attach(self, opening: gateway_pb2.ConverseRequest) -> Attachment:
        gateway = self._gateway
        action = opening.WhichOneof("action")
        if action == "resume":
            resume = opening.resume
            return gateway.sessions.resume(
                TENANT.get(), resume.session_id, resume.turn_id, resume.last_sequence
            )
        if action != "start":
            raise WrongState(f"the first message must be start or resume, not {action or 'empty'}")
        gateway.dispatcher.check_open()
        attachment = gateway.sessions.open(gateway.session(plan(gateway, TENANT.get(), opening.start)))
        attachment.session.start()
        return attachment


async def _read(
    requests: AsyncIterator[gateway_pb2.ConverseRequest], attachment: Attachment, meter: Meter, idle: Idle
) -> None:
    async for request in requests:
        if not attachment.held:
            return
        if _says_something(request, attachment.session.plan):
            idle.touch()
        if request.HasField("interrupt"):
            meter.interrupted()
        act(attachment.session, request)
    if attachment.session.plan.resume_window_s:
        await asyncio.sleep(LINGER_S)
    if attachment.held:
        attachment.session.end_input()


def _says_something(request: gateway_pb2.ConverseRequest, plan: Plan) -> bool:
    """Not a report of playback, nor an empty piece: players send those by themselves. Nor what a microphone
    sends that stays open: only the words in it, which come out as events."""
    match request.WhichOneof("action"):
        case "append":
            return bool(request.append.text)
        case "audio":
            return bool(request.audio.pcm16) and not plan.interrupt_on_speech
        case action:
            return action != "playback"


def act(session: Session, request: gateway_pb2.ConverseRequest) -> None:
    """One message of the client. Raises: UpbeatError, which ends the stream."""
    match request.WhichOneof("action"):
        case "append":
            session.append(request.append.text)
        case "revise":
            session.revise(request.revise.from_char, request.revise.text)
        case "audio":
            rate = fields.sample_rate(request.audio.sample_rate, "audio.sample_rate")
            session.audio(request.audio.pcm16, rate)
        case "commit":
            session.commit(request.commit.text if request.commit.HasField("text") else None)
        case "interrupt":
            session.interrupt(request.interrupt.played_ms)
        case "playback":
            session.playback(request.playback.played_ms)
        case "cancel":
            session.cancel(request.cancel.turn_id)
        case "start" | "resume" as again:
            raise WrongState(f"{again} may only come first, once", field=again)
        case _:
            raise InvalidRequest("action", "is not set, or unknown to this server")


def response(event: Event) -> gateway_pb2.ConverseResponse:
    """One event on the wire."""
    wire = gateway_pb2.ConverseResponse(
        session_id=event.session_id, turn_id=event.turn_id, sequence=event.sequence
    )
    match event.body:
        case Ready() as ready:
            wire.ready.CopyFrom(_ready(ready))
        case TokenChunk() as token:
            wire.token.CopyFrom(encode.token(token))
        case AudioChunk() as audio:
            wire.audio.CopyFrom(encode.audio(audio))
        case ImagePart() as image:
            wire.image.CopyFrom(encode.image(image))
        case TranscriptChunk() as transcript:
            wire.transcript.CopyFrom(encode.transcript(transcript))
        case Thought() as thought:
            wire.thought.CopyFrom(
                gateway_pb2.ThoughtEvent(revision=thought.revision, action=thought.action, text=thought.text)
            )
        case Discarded(revision):
            wire.discarded.CopyFrom(gateway_pb2.DiscardedEvent(revision=revision))
        case TurnDone() as done:
            wire.turn_done.CopyFrom(encode.done(done))
    return wire


def _ready(ready: Ready) -> gateway_pb2.ConverseReady:
    names = {model.modality: model.name for model in ready.models}
    return gateway_pb2.ConverseReady(
        models=types_pb2.ModelChoice(**names),
        audio_sample_rate=ready.sample_rate,
    )
