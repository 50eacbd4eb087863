"""ModelService: what is loaded."""

from __future__ import annotations

from upbeat.v1 import gateway_pb2, gateway_pb2_grpc, types_pb2

from pipelines.messages import ModelInfo
from server import catalog, streams
from server.gateway import Gateway

MODALITIES = {
    "text": types_pb2.MODALITY_TEXT,
    "speech": types_pb2.MODALITY_SPEECH,
    "image": types_pb2.MODALITY_IMAGE,
    "transcription": types_pb2.MODALITY_TRANSCRIPTION,
}
CLASSES = (
    types_pb2.SERVICE_CLASS_REALTIME,
    types_pb2.SERVICE_CLASS_INTERACTIVE,
    types_pb2.SERVICE_CLASS_STANDARD,
    types_pb2.SERVICE_CLASS_BATCH,
)


class ModelService(gateway_pb2_grpc.ModelServiceServicer):
    """Answers from what the device last reported, also while it is down."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ListModels(
        self, request: gateway_pb2.ListModelsRequest, context: streams.Context
    ) -> gateway_pb2.ListModelsResponse:
        models = self._gateway.link.models
        defaults = catalog.default_names(models)
        serving = self._gateway.link.up and not self._gateway.dispatcher.draining
        return gateway_pb2.ListModelsResponse(
            models=[_model(model, model.name in defaults, serving) for model in models],
            max_message_bytes=self._gateway.config.limits.message_bytes,
        )


def _model(model: ModelInfo, is_default: bool, serving: bool) -> gateway_pb2.Model:
    return gateway_pb2.Model(
        name=model.name,
        modality=MODALITIES[model.modality],
        family=model.family,
        parameters=model.parameters,
        is_default=is_default,
        context_tokens=model.context_tokens,
        voices=model.voices,
        sample_rate=model.sample_rate,
        sizes=[gateway_pb2.ImageSize(width=width, height=height) for width, height in model.sizes],
        max_steps=model.max_steps,
        default_steps=model.default_steps,
        schedulers=model.schedulers,
        languages=model.languages,
        service_classes=CLASSES,
        serving=serving,
        loras=model.loras,
        control=model.control,
    )
