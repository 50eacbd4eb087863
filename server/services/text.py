"""TextService: one prompt, its tokens."""

from __future__ import annotations

import asyncio

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc

from pipelines.errors import InvalidRequest
from pipelines.messages import JobClass, PromptRevision, TextRequest, TokenChunk
from server import streams
from server.auth import TENANT
from server.events import Event, TurnDone
from server.executor.link import JobOrder
from server.gateway import Gateway, new_id
from server.lanes import TextLane
from server.services import encode, fields, options
from server.turn import Turn


class TextService(gateway_pb2_grpc.TextServiceServicer):
    """Text from one request."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def GenerateText(  # type: ignore[override]  # a coroutine that writes
        self, request: gateway_pb2.GenerateTextRequest, context: streams.Context
    ) -> None:
        gateway = self._gateway
        session_id = new_id()
        order = _order(gateway, session_id, request, streams.deadline_in_s(context))
        signal = asyncio.Event()
        turn = Turn(session_id, order.turn_id, gateway.clock.now(), signal.set)
        turn.add(TextLane(gateway.dispatcher.submit(order), tags=True))
        turn.seal()
        await streams.one_turn(gateway, turn, signal, lambda event: context.write(_response(event)))


def _order(
    gateway: Gateway, session_id: str, request: gateway_pb2.GenerateTextRequest, deadline_in_s: float
) -> JobOrder:
    """Raises: InvalidRequest, NotFound, Unsupported."""
    model = gateway.model("text", request.model, "model")
    limit = gateway.config.limits.prompt_chars
    if not request.prompt.strip():
        raise InvalidRequest("prompt", "must not be empty")
    prompt = fields.text(request.prompt, "prompt", limit)
    history = options.history(request.history, "history", limit)
    sampling = options.sampling(request.sampling, "sampling.", model.context_tokens)
    return JobOrder(
        model.name,
        session_id,
        f"{session_id}.1",
        TENANT.get(),
        options.job_class(request.service, "service.", JobClass.INTERACTIVE),
        TextRequest(history, sampling, options.cache_scope(request.service, "service.")),
        first=PromptRevision(1, prompt, final=True),
        deadline_in_s=deadline_in_s,
    )


def _response(event: Event) -> gateway_pb2.GenerateTextResponse:
    wire = gateway_pb2.GenerateTextResponse(
        session_id=event.session_id, turn_id=event.turn_id, sequence=event.sequence
    )
    match event.body:
        case TokenChunk() as token:
            wire.token.CopyFrom(encode.token(token))
        case TurnDone() as done:
            wire.done.CopyFrom(encode.done(done))
    return wire
