"""ConverseStart: the settings of a conversation, from the wire to a Plan."""

from __future__ import annotations

from upbeat.v1 import gateway_pb2, types_pb2

from pipelines.errors import InvalidRequest
from pipelines.messages import ImageRequest, JobClass, ModelInfo, SpeechRequest
from server.gateway import Gateway
from server.plan import Plan
from server.services import fields, options
from server.services.ahead import ahead

MAX_RESUME_WINDOW_MS = 60_000
WANTED = {
    types_pb2.MODALITY_TEXT: "text",
    types_pb2.MODALITY_SPEECH: "speech",
    types_pb2.MODALITY_IMAGE: "image",
}
NOTHING = ImageRequest("")


def plan(gateway: Gateway, tenant: str, start: gateway_pb2.ConverseStart) -> Plan:
    """The settings, checked. Raises: InvalidRequest, NotFound, Unsupported."""
    wanted = _modalities(start)
    text, speech, image = (_model(gateway, start, each, each in wanted) for each in WANTED.values())
    default = JobClass.REALTIME if speech else JobClass.INTERACTIVE
    asked = options.job_class(start.service, "start.service.", default)
    trigger = fields.known(start.image.trigger, "start.image.trigger", types_pb2.ImageTrigger)
    side, may_lower = gateway.config.device.max_image_side, start.service.allow_lower_quality
    window_ms = fields.within(start.resume_window_ms, "start.resume_window_ms", 0, MAX_RESUME_WINDOW_MS)
    return Plan(
        tenant=tenant,
        text=text,
        speech=speech,
        image=image,
        transcription=_ear(gateway, start),
        job_class=asked,
        image_class=max(JobClass.STANDARD, asked),
        ahead=ahead(gateway, start),
        sampling=options.sampling(start.sampling, "start.sampling.", text.context_tokens if text else 0),
        cache_scope=options.cache_scope(start.service, "start.service."),
        voice=options.voice(start.voice, "start.voice.", speech) if speech else SpeechRequest(),
        drawing=options.image(start.image, "start.image.", image, side, may_lower) if image else NOTHING,
        draw_on_request=trigger == types_pb2.IMAGE_TRIGGER_MODEL,
        history=options.history(start.history, "start.history", gateway.config.limits.prompt_chars),
        resume_window_s=window_ms / 1000.0,
        audio_sample_rate=start.audio_sample_rate,
        commit_on_silence=start.commit_on_silence,
        interrupt_on_speech=start.interrupt_on_speech,
    )


def _model(
    gateway: Gateway, start: gateway_pb2.ConverseStart, modality: str, wanted: bool
) -> ModelInfo | None:
    name: str = getattr(start.models, modality)
    return gateway.model(modality, name, f"start.models.{modality}") if wanted else None


def _ear(gateway: Gateway, start: gateway_pb2.ConverseStart) -> ModelInfo | None:
    """The recogniser, where audio is announced."""
    rate = fields.sample_rate(start.audio_sample_rate, "start.audio_sample_rate")
    if start.commit_on_silence and not rate:
        raise InvalidRequest("start.commit_on_silence", "needs audio: set start.audio_sample_rate")
    if start.interrupt_on_speech and not start.commit_on_silence:
        raise InvalidRequest("start.interrupt_on_speech", "needs start.commit_on_silence")
    return _model(gateway, start, "transcription", rate > 0)


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
