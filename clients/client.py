"""The asynchronous client library.

    async with Upbeat("localhost:50051") as upbeat:
        async with upbeat.converse(modalities=("text", "speech")) as talk:
            await talk.append("Tell me about the green ")
            await talk.revise(18, "red boat.")
            await talk.commit()
            async for event in talk:
                print(event)

Every call raises ClientError; what the caller's own pieces raise leaves as it is. Options are the wire's own
messages (Sampling, VoiceOptions, ImageOptions, ServiceOptions, ModelChoice): a field that is left out takes
the server's default.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import gateway_pb2_grpc as gateway_grpc
from upbeat.v1.types_pb2 import (
    ChatMessage,
    ImageOptions,
    Modality,
    ModelChoice,
    PartialPromptMode,
    Role,
    Sampling,
    ServiceOptions,
    VoiceOptions,
)

from clients.errors import ClientError, Ending, count, one_of, translated
from clients.events import Audio, Done, Event, Image, Reader, Response, Token, Transcript
from clients.talk import Talk

DEFAULT_TARGET = "localhost:50051"
TRACE_SLACK_S = 15.0
OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

ModalityName = Literal["text", "speech", "image"]
PartialPrompts = Literal["off", "prefill", "answer_ahead", "think_ahead"]
RoleName = Literal["system", "user", "assistant"]
Message = tuple[RoleName, str]
Kind = TypeVar("Kind", bound=Event)
ENDS = (type(None), StopAsyncIteration, asyncio.CancelledError)
"""What making requests ends with where nothing is wrong with them."""


class Upbeat:
    """A connection to a gateway. Owner: one event loop.

    target: host:port or any gRPC name. token: sent as bearer token. credentials: TLS; None for plain text.
    Raises: ClientError where no call could be made with these.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str = "",
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if not target:
            raise ClientError("INVALID_ARGUMENT", "target: host:port, not ''", field="target")
        if not (token.isascii() and token.isprintable()):
            raise ClientError("INVALID_ARGUMENT", "token: printable ASCII characters only", field="token")
        self.target = target
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._credentials = credentials
        self._open: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        if self._credentials is None:
            self._open = grpc.aio.insecure_channel(self.target, options=OPTIONS)
        else:
            self._open = grpc.aio.secure_channel(self.target, self._credentials, options=OPTIONS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        channel, self._open = self._channel, None
        await channel.close()

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._open is None:
            raise ClientError("FAILED_PRECONDITION", "the connection is not open: enter it with `async with`")
        return self._open

    def converse(
        self,
        *,
        modalities: Iterable[ModalityName] = ("text",),
        models: ModelChoice | None = None,
        service: ServiceOptions | None = None,
        sampling: Sampling | None = None,
        voice: VoiceOptions | None = None,
        image: ImageOptions | None = None,
        partial_prompts: PartialPrompts = "prefill",
        policy: str = "",
        history: Sequence[Message] = (),
        thoughts: bool = False,
        emit_before_commit: bool = False,
        resume_window_s: float = 0.0,
        audio_sample_rate: int = 0,
        commit_on_silence: bool = False,
        interrupt_on_speech: bool = False,
    ) -> Talk:
        """A conversation in full duplex. resume_window_s: how long the server keeps a turn whose stream is
        lost and this client tries to go on with it, at most 60; the other options as ConverseStart has them.
        """
        start = gateway.ConverseStart(
            models=models,
            modalities=[_modality(name) for name in modalities],
            service=service,
            sampling=sampling,
            voice=voice,
            image=image,
            partial_prompt_mode=_partial_prompt_mode(partial_prompts),
            partial_prompt_policy=policy,
            history=_messages(history),
            thoughts=thoughts,
            emit_before_commit=emit_before_commit,
            resume_window_ms=count("start.resume_window_ms", round(resume_window_s * 1000)),
            audio_sample_rate=count("start.audio_sample_rate", audio_sample_rate),
            commit_on_silence=commit_on_silence,
            interrupt_on_speech=interrupt_on_speech,
        )
        return Talk(self._conversation(), start, self._metadata, resume_window_s)

    def resume(self, position: gateway.ResumeTurn, *, resume_window_s: float = 0.0) -> Talk:
        """Goes on with a turn behind `position` (of `Talk.position`)."""
        return Talk(self._conversation(), position, self._metadata, resume_window_s)

    def generate(
        self,
        prompt: str,
        *,
        model: str = "",
        history: Sequence[Message] = (),
        sampling: Sampling | None = None,
        service: ServiceOptions | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Token | Done]:
        """Text from one prompt: tokens, then done."""
        request = gateway.GenerateTextRequest(
            model=model, prompt=prompt, history=_messages(history), sampling=sampling, service=service
        )
        stub: gateway_grpc.TextServiceAsyncStub = gateway_grpc.TextServiceStub(self._channel)
        call = stub.GenerateText(request, timeout=timeout_s, metadata=self._metadata)
        return _events(call, Ending(call), Token)

    def synthesize(
        self,
        text: str | AsyncIterable[str],
        *,
        model: str = "",
        voice: VoiceOptions | None = None,
        service: ServiceOptions | None = None,
        unpaced: bool = True,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Audio | Done]:
        """Speech from text, which may still be coming: audio, then done. unpaced: as fast as it is made."""
        start = gateway.SynthesizeSpeechStart(model=model, voice=voice, service=service, unpaced=unpaced)

        async def requests() -> AsyncIterator[gateway.SynthesizeSpeechRequest]:
            yield gateway.SynthesizeSpeechRequest(start=start)
            async for piece in _pieces(text):
                yield gateway.SynthesizeSpeechRequest(append=gateway.AppendText(text=piece))

        stub: gateway_grpc.SpeechServiceAsyncStub = gateway_grpc.SpeechServiceStub(self._channel)
        sent = _Sent(requests())
        call = stub.SynthesizeSpeech(sent, timeout=timeout_s, metadata=self._metadata)
        return _events(call, Ending(call), Audio, sent)

    def transcribe(
        self,
        audio: AsyncIterable[bytes],
        sample_rate: int,
        *,
        model: str = "",
        language: str = "",
        final_only: bool = False,
        service: ServiceOptions | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Transcript | Done]:
        """Text from audio (pieces of mono PCM16 at `sample_rate` Hz): transcripts, then done."""
        start = gateway.TranscribeSpeechStart(
            model=model,
            sample_rate=count("start.sample_rate", sample_rate),
            language=language,
            final_only=final_only,
            service=service,
        )

        async def requests() -> AsyncIterator[gateway.TranscribeSpeechRequest]:
            yield gateway.TranscribeSpeechRequest(start=start)
            async for piece in audio:
                yield gateway.TranscribeSpeechRequest(audio=gateway.AudioInput(pcm16=piece))

        stub: gateway_grpc.SpeechServiceAsyncStub = gateway_grpc.SpeechServiceStub(self._channel)
        sent = _Sent(requests())
        call = stub.TranscribeSpeech(sent, timeout=timeout_s, metadata=self._metadata)
        return _events(call, Ending(call), Transcript, sent)

    def draw(
        self,
        prompt: str,
        *,
        model: str = "",
        image: ImageOptions | None = None,
        service: ServiceOptions | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Image | Done]:
        """An image: previews, the image, then done."""
        options = ImageOptions()
        options.CopyFrom(image or options)
        options.prompt = prompt
        request = gateway.GenerateImageRequest(model=model, image=options, service=service)
        stub: gateway_grpc.ImageServiceAsyncStub = gateway_grpc.ImageServiceStub(self._channel)
        call = stub.GenerateImage(request, timeout=timeout_s, metadata=self._metadata)
        return _events(call, Ending(call), Image)

    async def models(self, *, timeout_s: float | None = 10.0) -> gateway.ListModelsResponse:
        """What is loaded, with limits."""
        stub: gateway_grpc.ModelServiceAsyncStub = gateway_grpc.ModelServiceStub(self._channel)
        with translated():
            return await stub.ListModels(
                gateway.ListModelsRequest(), timeout=timeout_s, metadata=self._metadata
            )

    async def trace(self, seconds: float) -> bytes:
        """What the device does in the next seconds (0.1 to 60), as Chrome trace events in JSON."""
        stub: gateway_grpc.DiagnosticsServiceAsyncStub = gateway_grpc.DiagnosticsServiceStub(self._channel)
        request = gateway.TraceDeviceRequest(seconds=seconds)
        with translated():
            call = stub.TraceDevice(request, timeout=seconds + TRACE_SLACK_S, metadata=self._metadata)
            return b"".join([part.json async for part in call])

    async def health(self, service: str = "", *, timeout_s: float | None = 5.0) -> str:
        """ "SERVING", "NOT_SERVING" or "SERVICE_UNKNOWN"; service "" for the whole server."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        with translated():
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def _conversation(self) -> gateway_grpc.ConversationServiceAsyncStub:
        stub: gateway_grpc.ConversationServiceAsyncStub = gateway_grpc.ConversationServiceStub(self._channel)
        return stub


class _Stream(Protocol):
    def __aiter__(self) -> AsyncIterator[Response]: ...

    def cancel(self) -> bool: ...


class _Sent(AsyncIterator[Any]):
    """Requests that are still being made. Where that fails grpc.aio drops the error and cancels the call: the
    error is kept here."""

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self.error: BaseException | None = None
        self._requests = requests

    async def __anext__(self) -> Any:
        try:
            return await anext(self._requests)
        finally:
            self.error = sys.exception()


async def _events(
    call: _Stream, ending: Ending, kind: type[Kind], sent: _Sent | None = None
) -> AsyncIterator[Kind | Done]:
    """All events of a call; raises what `done` reports. Leaving early cancels the call."""
    reader = Reader()
    try:
        with translated(ending):
            async for response in call:
                event = reader.read(response)
                if isinstance(event, Done) and event.error is not None:
                    raise event.error
                if isinstance(event, kind | Done):
                    yield event
    except asyncio.CancelledError:
        if sent is not None and not isinstance(sent.error, ENDS):
            raise sent.error from None
        raise
    finally:
        call.cancel()


async def _pieces(text: str | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(text, str):
        yield text
        return
    async for piece in text:
        yield piece


def _messages(history: Sequence[Message]) -> list[ChatMessage]:
    messages = []
    for number, (role, content) in enumerate(history):
        one_of(f"history[{number}].role", role, get_args(RoleName))
        messages.append(ChatMessage(role=Role.Value(f"ROLE_{role.upper()}"), content=content))
    return messages


def _modality(name: ModalityName) -> Modality.ValueType:
    one_of("start.modalities", name, get_args(ModalityName))
    return Modality.Value(f"MODALITY_{name.upper()}")


def _partial_prompt_mode(name: PartialPrompts) -> PartialPromptMode.ValueType:
    one_of("start.partial_prompt_mode", name, get_args(PartialPrompts))
    return PartialPromptMode.Value(f"PARTIAL_PROMPT_MODE_{name.upper()}")
