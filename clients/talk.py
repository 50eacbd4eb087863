"""One conversation over one Converse stream.

Rules:
  1. One task sends, one task iterates; they may be the same. Cancelling a read ends the stream.
  2. An iteration ends behind the turn's `Done`; the next iteration belongs to the next turn.
  3. A stream lost in mid-turn is opened again with `resume` until the window is over, and goes on behind
     the last event that arrived: no event is seen twice. What was being sent when it broke is lost, so
     only a turn that has shown its turn_id (any event after `commit`) can be resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import grpc
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import gateway_pb2_grpc as gateway_grpc

from clients.errors import ClientError, Ending, count, translated
from clients.events import Done, Event, Reader, Ready

RETRY_S = 0.1
GOODBYE_S = 1.0

Call = grpc.aio.StreamStreamCall[gateway.ConverseRequest, gateway.ConverseResponse]
Metadata = Sequence[tuple[str, str]]


class Talk:
    """A conversation; made by `Upbeat.converse`, entered with `async with`. ended: the server has said all.

    Raises, from every method: ClientError.
    """

    def __init__(
        self,
        stub: gateway_grpc.ConversationServiceAsyncStub,
        first: gateway.ConverseStart | gateway.ResumeTurn,
        metadata: Metadata,
        resume_window_s: float,
    ) -> None:
        self._stub = stub
        self._first = first
        self._metadata = metadata
        self._resume_window_s = resume_window_s
        self._reader = Reader()
        self._call: Call | None = None
        self._ending: Ending | None = None
        self._session_id = ""
        self._turn_id = ""
        self._sequence = 0
        self._in_turn = False
        self._ready: Ready | None = None
        self.ended = False
        if isinstance(first, gateway.ResumeTurn):
            self._session_id, self._turn_id, self._sequence = (
                first.session_id,
                first.turn_id,
                first.last_sequence,
            )
            self._in_turn = True

    @property
    def ready(self) -> Ready:
        """The models that answer and the sample rate; a resumed conversation has none."""
        if self._ready is None:
            raise ClientError("FAILED_PRECONDITION", "the conversation has not been set up on this stream")
        return self._ready

    @property
    def position(self) -> gateway.ResumeTurn:
        """Where the conversation stands; `Upbeat.resume` goes on behind it, even in another process."""
        return gateway.ResumeTurn(
            session_id=self._session_id, turn_id=self._turn_id, last_sequence=self._sequence
        )

    async def append(self, text: str) -> None:
        """More of the prompt."""
        await self._send(gateway.ConverseRequest(append=gateway.AppendText(text=text)))

    async def revise(self, from_char: int, text: str) -> None:
        """The prompt from `from_char` (in characters) on becomes `text`."""
        revision = gateway.ReviseText(from_char=count("revise.from_char", from_char), text=text)
        await self._send(gateway.ConverseRequest(revise=revision))

    async def audio(self, pcm16: bytes, sample_rate: int = 0) -> None:
        """A piece of the spoken prompt: mono PCM16; sample_rate 0 for that of the start."""
        piece = gateway.AudioInput(pcm16=pcm16, sample_rate=count("audio.sample_rate", sample_rate))
        await self._send(gateway.ConverseRequest(audio=piece))

    async def commit(self, text: str | None = None) -> None:
        """The prompt is complete (or is `text`): answer it."""
        await self._send(gateway.ConverseRequest(commit=gateway.CommitPrompt(text=text)))
        self._in_turn = True

    async def interrupt(self, played_ms: int) -> None:
        """The listener has begun to speak, having heard `played_ms` of the turn's audio."""
        await self._send(
            gateway.ConverseRequest(
                interrupt=gateway.InterruptTurn(played_ms=count("interrupt.played_ms", played_ms))
            )
        )

    async def playback(self, played_ms: int) -> None:
        """What the listener has heard; paces the audio."""
        await self._send(
            gateway.ConverseRequest(
                playback=gateway.PlaybackPosition(played_ms=count("playback.played_ms", played_ms))
            )
        )

    async def cancel(self, turn_id: str = "") -> None:
        """Drop the current turn, or the one named."""
        await self._send(gateway.ConverseRequest(cancel=gateway.CancelTurn(turn_id=turn_id)))

    async def end(self) -> None:
        """Nothing more will be said; what was said is still answered."""
        if self._call is not None and not self._call.done():
            await self._call.done_writing()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (response := await self._receive()) is not None:
            event = self._reader.read(response)
            self._in_turn = not isinstance(event, Ready | Done)
            if isinstance(event, Ready):
                self._ready = event
            elif event is not None:
                yield event
            if isinstance(event, Done):
                return
        self.ended = True

    async def __aenter__(self) -> Self:
        await self._open(self._first)
        while self._ready is None and isinstance(self._first, gateway.ConverseStart):
            response = await self._receive()
            event = self._reader.read(response) if response is not None else None
            if not isinstance(event, Ready):
                raise ClientError("INTERNAL", "the server did not answer `start` with `ready`")
            self._ready = event
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the stream: politely between turns, at once in the midst of one."""
        call = self._call
        if call is None or call.done():
            return
        if kind is None and not self._in_turn:
            await call.done_writing()
            await asyncio.wait({asyncio.ensure_future(call.code())}, timeout=GOODBYE_S)
        call.cancel()

    async def _open(self, first: gateway.ConverseStart | gateway.ResumeTurn) -> None:
        request = (
            gateway.ConverseRequest(start=first)
            if isinstance(first, gateway.ConverseStart)
            else gateway.ConverseRequest(resume=first)
        )
        self._call = self._stub.Converse(metadata=tuple(self._metadata))
        self._ending = Ending(self._call)
        await self._send(request)

    async def _send(self, request: gateway.ConverseRequest) -> None:
        if self._call is None or self._call.cancelled():
            raise ClientError("FAILED_PRECONDITION", "the conversation is not open")
        with translated(self._ending):
            try:
                await self._call.write(request)
                return
            except asyncio.InvalidStateError:
                await self._call.read()
        raise ClientError("FAILED_PRECONDITION", "the server has ended the conversation")

    async def _receive(self) -> gateway.ConverseResponse | None:
        """The next response that was not seen before; None at the end of the stream."""
        lost_at_s: float | None = None
        while True:
            try:
                if lost_at_s is not None:
                    await self._open(self.position)
                response = await self._read()
            except ClientError as error:
                now_s = asyncio.get_running_loop().time()
                lost_at_s = now_s if lost_at_s is None else lost_at_s
                if not self._resumable(error) or now_s - lost_at_s >= self._resume_window_s:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            lost_at_s = None
            if response is None or self._is_new(response):
                return response

    async def _read(self) -> gateway.ConverseResponse | None:
        if self._call is None or self._call.cancelled():
            raise ClientError("FAILED_PRECONDITION", "the conversation is not open")
        with translated(self._ending):
            response = await self._call.read()
            return response if isinstance(response, gateway.ConverseResponse) else None
        return None

    def _resumable(self, error: ClientError) -> bool:
        return error.connection_lost and self._in_turn and bool(self._turn_id)

    def _is_new(self, response: gateway.ConverseResponse) -> bool:
        self._session_id = response.session_id
        if response.WhichOneof("event") == "ready":
            return True
        if response.turn_id == self._turn_id and response.sequence <= self._sequence:
            return False
        self._turn_id, self._sequence = response.turn_id, response.sequence
        return True
