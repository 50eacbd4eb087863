"""The option messages that several services share, from the wire to the domain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from upbeat.v1 import types_pb2

from pipelines.errors import InvalidRequest, NotFound
from pipelines.limits import (
    MAX_GRAMMAR_CHARS,
    MAX_GUIDANCE,
    MAX_IMAGE_BYTES,
    MAX_LOGPROBS,
    MAX_LORA_WEIGHT,
    MAX_LORAS,
    MAX_PREVIEW_MS,
    MAX_STEPS,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MIMES,
    MIN_SIDE,
    PITCH_LIMITS,
    RATE_LIMITS,
    REPETITION_LIMITS,
)
from pipelines.messages import ImageRequest, JobClass, Message, ModelInfo, Sampling, SpeechRequest
from server.services import fields

ROLES = {types_pb2.ROLE_SYSTEM: "system", types_pb2.ROLE_USER: "user", types_pb2.ROLE_ASSISTANT: "assistant"}
CACHE_LEVELS = {
    types_pb2.CACHE_LEVEL_UNSPECIFIED: "off",
    types_pb2.CACHE_LEVEL_OFF: "off",
    types_pb2.CACHE_LEVEL_BALANCED: "balanced",
    types_pb2.CACHE_LEVEL_FAST: "fast",
}
MAX_SCOPE_CHARS = 256
MAX_PROMPT_CHARS = 10_000
MAX_TOP_K = 1 << 20


def sampling(wire: types_pb2.Sampling, prefix: str, context_tokens: int) -> Sampling:
    """Raises: InvalidRequest, Unsupported."""
    longest = context_tokens or 1 << 20
    return Sampling(
        temperature=fields.number(wire, prefix, "temperature", 0, 2, 0.0),
        top_p=_share(wire, prefix, "top_p", 1.0),
        top_k=fields.count(wire, prefix, "top_k", 0, MAX_TOP_K, 0),
        min_p=fields.number(wire, prefix, "min_p", 0, 1, 0.0),
        repetition_penalty=fields.number(wire, prefix, "repetition_penalty", *REPETITION_LIMITS, 1.0),
        presence_penalty=fields.number(wire, prefix, "presence_penalty", -2, 2, 0.0),
        frequency_penalty=fields.number(wire, prefix, "frequency_penalty", -2, 2, 0.0),
        seed=wire.seed,
        max_tokens=fields.count(wire, prefix, "max_tokens", 1, longest, min(256, longest)),
        stop=_stop(wire, prefix + "stop"),
        logprobs=fields.count(wire, prefix, "logprobs", 0, MAX_LOGPROBS, 0),
        json_schema=fields.text(wire.json_schema, prefix + "json_schema", MAX_GRAMMAR_CHARS),
        regex=fields.text(wire.regex, prefix + "regex", MAX_GRAMMAR_CHARS),
    )


def voice(wire: types_pb2.VoiceOptions, prefix: str, model: ModelInfo) -> SpeechRequest:
    """Raises: InvalidRequest, NotFound."""
    if wire.voice and wire.voice not in model.voices:
        known = ", ".join(model.voices) or "none"
        raise NotFound(f"{model.name} has no voice {wire.voice!r}; it has: {known}", field=prefix + "voice")
    return SpeechRequest(
        voice=wire.voice,
        rate=fields.number(wire, prefix, "rate", *RATE_LIMITS, 1.0),
        pitch=fields.number(wire, prefix, "pitch", *PITCH_LIMITS, 1.0),
        sample_rate=fields.sample_rate(wire.sample_rate, prefix + "sample_rate"),
    )


def image(
    wire: types_pb2.ImageOptions, prefix: str, model: ModelInfo, max_side: int, may_lower: bool
) -> ImageRequest:
    """The prompt may be empty here. Raises: InvalidRequest, Unsupported."""
    default_mime = wire.mime or MIMES[0]
    guidance = fields.number(wire, prefix, "guidance", 0, MAX_GUIDANCE, 0.0)
    if wire.HasField("guidance"):
        guidance = max(1.0, guidance)  # 0 stands for the model's own inside; at most 1 is off.
    preview_ms = fields.count(wire, prefix, "preview_ms", 0, MAX_PREVIEW_MS, 0)
    return ImageRequest(
        prompt=fields.text(wire.prompt, prefix + "prompt", MAX_PROMPT_CHARS),
        negative_prompt=fields.text(wire.negative_prompt, prefix + "negative_prompt", MAX_PROMPT_CHARS),
        width=_side(wire, "width", prefix, max_side),
        height=_side(wire, "height", prefix, max_side),
        steps=fields.count(wire, prefix, "steps", 1, min(MAX_STEPS, model.max_steps or MAX_STEPS), 0),
        guidance=guidance,
        seed=wire.seed,
        scheduler=fields.one_of(wire.scheduler, prefix + "scheduler", ("", *model.schedulers)),
        preview_every=fields.count(wire, prefix, "preview_every", 0, MAX_STEPS, 1 if preview_ms else 4),
        preview_ms=preview_ms,
        mime=fields.one_of(default_mime, prefix + "mime", MIMES),
        quality=fields.count(wire, prefix, "quality", 1, 100, 90),
        cache_level=_cache_level(wire, prefix),
        allow_lower_quality=may_lower,
        loras=_loras(wire, prefix, model),
        init_image=_reference(wire, prefix, "init_image"),
        strength=_share(wire.init_image, prefix + "init_image.", "strength", 0.8),
        control_image=_control(wire, prefix, model),
        control_strength=_share(wire.control_image, prefix + "control_image.", "strength", 1.0),
    )


def history(wire: Iterable[types_pb2.ChatMessage], field: str, most: int) -> tuple[Message, ...]:
    """Oldest first; a system message may only come first. Raises: InvalidRequest."""
    messages: list[Message] = []
    total = 0
    for index, each in enumerate(wire):
        at = f"{field}[{index}]"
        if each.role not in ROLES:
            raise InvalidRequest(f"{at}.role", f"must be system, user or assistant, not {each.role}")
        if each.role == types_pb2.ROLE_SYSTEM and index:
            raise InvalidRequest(f"{at}.role", "a system message may only come first")
        if not each.content.strip():
            raise InvalidRequest(f"{at}.content", "must not be empty")
        total += len(each.content)
        if total > most:
            raise InvalidRequest(field, f"at most {most} characters in all")
        messages.append(Message(ROLES[each.role], each.content))
    return tuple(messages)


def job_class(wire: types_pb2.ServiceOptions, prefix: str, default: JobClass) -> JobClass:
    """The class asked for. Raises: InvalidRequest."""
    asked = fields.known(wire.service_class, prefix + "service_class", types_pb2.ServiceClass)
    return default if asked == types_pb2.SERVICE_CLASS_UNSPECIFIED else JobClass(asked - 1)


def cache_scope(wire: types_pb2.ServiceOptions, prefix: str) -> str:
    """The scope inside the tenant in which cached prefixes are shared. Raises: InvalidRequest."""
    return fields.text(wire.cache_scope, prefix + "cache_scope", MAX_SCOPE_CHARS)


def _share(wire: Any, prefix: str, name: str, default: float) -> float:
    """Above 0, at most 1."""
    value: float = getattr(wire, name) if wire.HasField(name) else default
    if not 0 < value <= 1:
        raise InvalidRequest(prefix + name, f"must be above 0 and at most 1, not {value:g}")
    return value


def _stop(wire: types_pb2.Sampling, field: str) -> tuple[str, ...]:
    if len(wire.stop) > MAX_STOPS:
        raise InvalidRequest(field, f"at most {MAX_STOPS} strings, not {len(wire.stop)}")
    for index, stop in enumerate(wire.stop):
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise InvalidRequest(
                f"{field}[{index}]", f"must have 1 to {MAX_STOP_CHARS} characters, not {len(stop)}"
            )
    return tuple(wire.stop)


def _side(wire: types_pb2.ImageOptions, name: Literal["width", "height"], prefix: str, max_side: int) -> int:
    """Pixels; 0, which stands for the model's own, where it is not set."""
    if not wire.HasField(name):
        return 0
    value: int = getattr(wire, name)
    if not MIN_SIDE <= value <= max_side or value % 8:
        raise InvalidRequest(prefix + name, f"a multiple of 8 from {MIN_SIDE} to {max_side}, not {value}")
    return value


def _loras(wire: types_pb2.ImageOptions, prefix: str, model: ModelInfo) -> tuple[tuple[str, float], ...]:
    """(name, weight) of each add-on."""
    if len(wire.loras) > MAX_LORAS:
        raise InvalidRequest(prefix + "loras", f"at most {MAX_LORAS} add-ons, not {len(wire.loras)}")
    asked: dict[str, float] = {}
    for index, lora in enumerate(wire.loras):
        at = f"{prefix}loras[{index}]."
        if lora.name not in model.loras:
            known = ", ".join(model.loras) or "none"
            raise NotFound(f"{model.name} has no add-on {lora.name!r}; it has: {known}", field=at + "name")
        if lora.name in asked:
            raise InvalidRequest(at + "name", f"{lora.name!r} is named twice")
        asked[lora.name] = fields.number(lora, at, "weight", -MAX_LORA_WEIGHT, MAX_LORA_WEIGHT, 1.0)
    return tuple(asked.items())


def _reference(
    wire: types_pb2.ImageOptions, prefix: str, name: Literal["init_image", "control_image"]
) -> bytes:
    """The image's bytes, none where it is not set. They are decoded on the device's side."""
    if not wire.HasField(name):
        return b""
    data: bytes = getattr(wire, name).data
    if not 1 <= len(data) <= MAX_IMAGE_BYTES:
        raise InvalidRequest(f"{prefix}{name}.data", f"1 to {MAX_IMAGE_BYTES} bytes, not {len(data)}")
    return data


def _control(wire: types_pb2.ImageOptions, prefix: str, model: ModelInfo) -> bytes:
    data = _reference(wire, prefix, "control_image")
    fields.not_served(data and not model.control, prefix + "control_image", f"{model.name} has no ControlNet")
    return data


def _cache_level(wire: types_pb2.ImageOptions, prefix: str) -> str:
    fields.known(wire.cache_level, prefix + "cache_level", types_pb2.CacheLevel)
    return CACHE_LEVELS[wire.cache_level]
