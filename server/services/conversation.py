"""ConversationService: the full-duplex stream, between the wire and the session."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2

from pipelines.errors import InvalidRequest, WrongState
from pipelines.messages import AudioChunk, ImageRequest, JobClass, SpeechRequest, TokenChunk, TranscriptChunk
from server import streams
from server.attachment import Attachment
from server.auth import TENANT
from server.events import Event, ImagePart, Ready, TurnDone
from server.gateway import Gateway
from server.idle import Idle
from server.meter import Meter
from server.plan import Plan
from server.services import encode, fields, options
from server.session import Session

LINGER_S = 0.05  # A lost stream looks like the end of the requests until, a moment later, it is cancelled.
MAX_RESUME_WINDOW_MS = 60_000
WANTED = {
    types_pb2.MODALITY_TEXT: "text",
    types_pb2.MODALITY_SPEECH: "speech",
    types_pb2.MODALITY_IMAGE: "image",
}


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
        idle = Idle(gateway.clock, limit_s, lambda: attachment.expire(limit_s))

        async def write(event: Event) -> None:
            await context.write(response(event))
            meter.wrote(event)
            idle.touch()

        try:
            deadline_in_s = streams.deadline_in_s(context)
            attachment.session.deadline_s = gateway.clock.now() + (deadline_in_s or math.inf)
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
        idle.touch()
        if request.HasField("interrupt"):
            meter.interrupted()
        act(attachment.session, request)
    if attachment.session.plan.resume_window_s:
        await asyncio.sleep(LINGER_S)
    attachment.session.end_input()


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


def plan(gateway: Gateway, tenant: str, start: gateway_pb2.ConverseStart) -> Plan:
    """The settings of a conversation. Raises: InvalidRequest, NotFound, Unsupported."""
    _not_served(start)
    wanted = _modalities(start)
    names = start.models
    text = gateway.model("text", names.text, "start.models.text") if "text" in wanted else None
    speech = gateway.model("speech", names.speech, "start.models.speech") if "speech" in wanted else None
    image = gateway.model("image", names.image, "start.models.image") if "image" in wanted else None
    rate = fields.sample_rate(start.audio_sample_rate, "start.audio_sample_rate")
    ear = (
        gateway.model("transcription", names.transcription, "start.models.transcription")
        if rate or names.transcription
        else None
    )
    if start.commit_on_silence and not rate:
        raise InvalidRequest("start.commit_on_silence", "needs audio: set start.audio_sample_rate")
    asked = options.job_class(
        start.service, "start.service.", JobClass.REALTIME if speech else JobClass.INTERACTIVE
    )
    trigger = fields.known(start.image.trigger, "start.image.trigger", types_pb2.ImageTrigger)
    mode = fields.known(start.partial_prompt_mode, "start.partial_prompt_mode", types_pb2.PartialPromptMode)
    max_side = gateway.config.device.max_image_side
    return Plan(
        tenant=tenant,
        text=text,
        speech=speech,
        image=image,
        transcription=ear,
        job_class=asked,
        image_class=max(JobClass.STANDARD, asked),
        prefill=mode != types_pb2.PARTIAL_PROMPT_MODE_OFF,
        sampling=options.sampling(start.sampling, "start.sampling.", text.context_tokens if text else 0),
        voice=options.voice(start.voice, "start.voice.", speech) if speech else SpeechRequest(),
        drawing=options.image(start.image, "start.image.", image, max_side) if image else ImageRequest(""),
        draw_on_request=trigger == types_pb2.IMAGE_TRIGGER_MODEL,
        history=options.history(start.history, "start.history", gateway.config.limits.prompt_chars),
        resume_window_s=fields.within(
            start.resume_window_ms, "start.resume_window_ms", 0, MAX_RESUME_WINDOW_MS
        )
        / 1000.0,
        audio_sample_rate=rate,
        commit_on_silence=start.commit_on_silence,
    )


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
        case TurnDone() as done:
            wire.turn_done.CopyFrom(encode.done(done))
    return wire


def _modalities(start: gateway_pb2.ConverseStart) -> set[str]:
    wanted: set[str] = set()
    for index, modality in enumerate(start.modalities):
        if modality not in WANTED:
            raise InvalidRequest(
                f"start.modalities[{index}]",
                f"must be text, speech or image, not {modality}; audio in needs none",
            )
        wanted.add(WANTED[modality])
    if not wanted or "speech" in wanted:
        wanted.add("text")
    if start.image.trigger == types_pb2.IMAGE_TRIGGER_MODEL and wanted == {"image"}:
        raise InvalidRequest("start.image.trigger", "IMAGE_TRIGGER_MODEL needs text in start.modalities")
    return wanted


def _not_served(start: gateway_pb2.ConverseStart) -> None:
    later = (types_pb2.PARTIAL_PROMPT_MODE_ANSWER_AHEAD, types_pb2.PARTIAL_PROMPT_MODE_THINK_AHEAD)
    fields.not_served(
        start.partial_prompt_mode in later, "start.partial_prompt_mode", "OFF and PREFILL are served yet"
    )
    fields.not_served(
        start.partial_prompt_policy, "start.partial_prompt_policy", "no policies are served yet"
    )
    fields.not_served(
        start.emit_before_commit, "start.emit_before_commit", "answers ahead are not served yet"
    )
    fields.not_served(start.models.thinker, "start.models.thinker", "thinking ahead is not served yet")


def _ready(ready: Ready) -> gateway_pb2.ConverseReady:
    names = {model.modality: model.name for model in ready.models}
    return gateway_pb2.ConverseReady(
        models=types_pb2.ModelChoice(**names),
        audio_sample_rate=ready.sample_rate,
    )
