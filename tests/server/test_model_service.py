"""ListModels on the wire."""

from __future__ import annotations

import grpc
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2

from tests.fakes import FakeLink


async def test_all_models_with_their_limits(channel: grpc.aio.Channel, link: FakeLink) -> None:
    reply = await gateway_pb2_grpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest())
    assert [(model.name, model.modality, model.is_default, model.serving) for model in reply.models] == [
        ("fake-text", types_pb2.MODALITY_TEXT, True, True),
        ("fake-speech", types_pb2.MODALITY_SPEECH, True, True),
        ("fake-image", types_pb2.MODALITY_IMAGE, True, True),
        ("fake-ear", types_pb2.MODALITY_TRANSCRIPTION, True, True),
    ]
    text, speech, image, _ = reply.models
    assert text.context_tokens == 512
    assert (list(speech.voices), speech.sample_rate) == (["ann", "bob"], 16_000)
    assert [(size.width, size.height) for size in image.sizes] == [(64, 64)]
    assert (image.max_steps, image.default_steps, list(image.schedulers)) == (50, 8, ["ddim", "euler"])
    assert len(text.service_classes) == 4
    assert reply.max_message_bytes == 4 << 20


async def test_a_device_that_is_down_is_said_to_be(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.die()
    reply = await gateway_pb2_grpc.ModelServiceStub(channel).ListModels(pb.ListModelsRequest())
    link.revive()
    assert [model.serving for model in reply.models] == [False] * 4
