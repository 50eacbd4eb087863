"""ImageService: previews, then the image."""

from __future__ import annotations

import asyncio

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc

from pipelines.errors import InvalidRequest
from pipelines.messages import JobClass
from server import streams
from server.auth import TENANT
from server.events import Event, ImagePart, TurnDone
from server.executor.link import JobOrder
from server.gateway import Gateway, new_id
from server.lanes import ImageLane
from server.services import encode, options
from server.turn import Turn


class ImageService(gateway_pb2_grpc.ImageServiceServicer):
    """Images from one request."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def GenerateImage(  # type: ignore[override]  # a coroutine that writes
        self, request: gateway_pb2.GenerateImageRequest, context: streams.Context
    ) -> None:
        gateway = self._gateway
        session_id = new_id()
        order = _order(gateway, session_id, request, streams.deadline_in_s(context))
        signal = asyncio.Event()
        turn = Turn(session_id, order.turn_id, gateway.clock.now(), signal.set)
        turn.add(ImageLane(gateway.dispatcher.submit(order)))
        turn.seal()
        await streams.one_turn(gateway, turn, signal, lambda event: context.write(_response(event)))


def _order(
    gateway: Gateway, session_id: str, request: gateway_pb2.GenerateImageRequest, deadline_in_s: float
) -> JobOrder:
    """Raises: InvalidRequest, NotFound, Unsupported."""
    model = gateway.model("image", request.model, "model")
    side, may_lower = gateway.config.device.max_image_side, request.service.allow_lower_quality
    drawing = options.image(request.image, "image.", model, side, may_lower)
    if not drawing.prompt.strip():
        raise InvalidRequest("image.prompt", "must not be empty")
    return JobOrder(
        model.name,
        session_id,
        f"{session_id}.1",
        TENANT.get(),
        options.job_class(request.service, "service.", JobClass.STANDARD),
        drawing,
        deadline_in_s=deadline_in_s,
    )


def _response(event: Event) -> gateway_pb2.GenerateImageResponse:
    wire = gateway_pb2.GenerateImageResponse(
        session_id=event.session_id, turn_id=event.turn_id, sequence=event.sequence
    )
    match event.body:
        case ImagePart() as part:
            wire.image.CopyFrom(encode.image(part))
        case TurnDone() as done:
            wire.done.CopyFrom(encode.done(done))
    return wire
