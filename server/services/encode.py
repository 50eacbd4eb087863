"""Events from the domain to the wire; what the services' responses have in common."""

from __future__ import annotations

from upbeat.v1 import types_pb2

from pipelines.messages import AudioChunk, DeviceTimings, TokenChunk, TranscriptChunk, Usage
from server.events import ImagePart, Timings, TurnDone
from server.services.status import status_of


def token(chunk: TokenChunk) -> types_pb2.TokenEvent:
    details = [
        types_pb2.TokenDetail(
            token_id=token_id,
            logprob=logprob,
            top=[types_pb2.TokenLogprob(text=text, logprob=value) for text, value in top],
        )
        for token_id, logprob, top in zip(chunk.token_ids, chunk.logprobs, chunk.top, strict=False)
    ]
    return types_pb2.TokenEvent(
        text=chunk.text, tokens=len(chunk.token_ids), revision=chunk.revision, details=details
    )


def audio(chunk: AudioChunk) -> types_pb2.AudioEvent:
    return types_pb2.AudioEvent(pcm16=chunk.pcm16, sample_rate=chunk.sample_rate, start_ms=chunk.start_ms)


def image(part: ImagePart) -> types_pb2.ImageEvent:
    event = types_pb2.ImageEvent(
        step=part.step,
        steps=part.steps,
        mime=part.mime,
        data=part.data,
        width=part.width,
        height=part.height,
        part=part.part,
        parts=part.parts,
    )
    if part.final:
        event.final = True
    else:
        event.preview = True
    return event


def transcript(chunk: TranscriptChunk) -> types_pb2.TranscriptEvent:
    return types_pb2.TranscriptEvent(
        text=chunk.text,
        stability=chunk.stability,
        is_final=chunk.is_final,
        start_ms=chunk.start_ms,
        end_ms=chunk.end_ms,
    )


def done(event: TurnDone) -> types_pb2.DoneEvent:
    return types_pb2.DoneEvent(
        finish_reason=types_pb2.FinishReason.ValueType(int(event.reason)),
        usage=usage(event.usage),
        timings=timings(event.timings),
        error=status_of(event.error).SerializeToString() if event.error is not None else b"",
    )


def usage(value: Usage) -> types_pb2.Usage:
    return types_pb2.Usage(**{name: getattr(value, name) for name in value.__struct_fields__})


def timings(value: Timings) -> types_pb2.Timings:
    jobs = value.jobs.values()
    return types_pb2.Timings(
        first_token_ms=value.first_token_ms,
        last_token_ms=value.last_token_ms,
        first_audio_ms=value.first_audio_ms,
        first_preview_ms=value.first_preview_ms,
        image_ms=value.image_ms,
        total_ms=value.total_ms,
        queue_ms=sum(job.queue_ms for job in jobs),
        device_ms=sum(job.device_ms for job in jobs),
        preemptions=sum(job.preemptions for job in jobs),
        evictions=sum(job.evictions for job in jobs),
        quality=value.quality,
        jobs={name: _job(job) for name, job in value.jobs.items()},
    )


def _job(job: DeviceTimings) -> types_pb2.JobTimings:
    return types_pb2.JobTimings(
        queue_ms=job.queue_ms,
        device_ms=job.device_ms,
        preemptions=job.preemptions,
        evictions=job.evictions,
        slices=job.slices,
    )
