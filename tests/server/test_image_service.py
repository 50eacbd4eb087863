"""GenerateImage on the wire."""

from __future__ import annotations

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2

from pipelines.messages import ImageRequest, JobClass
from tests.fakes import Device, FakeLink
from tests.grpc_calls import details, refused


async def test_previews_then_the_image(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(Device(previews=(2, 4)))
    request = pb.GenerateImageRequest(image=types_pb2.ImageOptions(prompt="A ball"))
    events = [event async for event in gateway_pb2_grpc.ImageServiceStub(channel).GenerateImage(request)]
    assert [(e.sequence, e.image.step, e.image.preview, e.image.final) for e in events[:-1]] == [
        (1, 2, True, False),
        (2, 4, True, False),
        (3, 8, False, True),
    ]
    assert events[2].image.parts == 1
    done = events[-1].done
    assert (done.finish_reason, done.usage.evaluations) == (types_pb2.FINISH_REASON_STOP, 8)
    assert done.timings.first_preview_ms <= done.timings.image_ms <= done.timings.total_ms


async def test_what_goes_down(channel: grpc.aio.Channel, link: FakeLink) -> None:
    options = types_pb2.ImageOptions(
        prompt="A ball", negative_prompt="blue", width=64, height=128, steps=12, guidance=0, seed=5,
        scheduler="euler", preview_every=0, preview_ms=250, mime="image/webp", quality=80,
        cache_level=types_pb2.CACHE_LEVEL_OFF,
        loras=[types_pb2.LoraWeight(name="oil"), types_pb2.LoraWeight(name="ink", weight=-0.5)],
        init_image=types_pb2.ReferenceImage(data=b"picture", strength=0.25),
    )  # fmt: skip
    call = gateway_pb2_grpc.ImageServiceStub(channel).GenerateImage(pb.GenerateImageRequest(image=options))
    assert [event async for event in call]
    (submit,) = link.submitted(ImageRequest)
    assert submit.request == ImageRequest(
        "A ball", "blue", 64, 128, 12, 1.0, 5, "euler", "off", 0, "image/webp", 80,
        loras=(("oil", 1.0), ("ink", -0.5)), init_image=b"picture", strength=0.25, preview_ms=250,
    )  # fmt: skip
    assert submit.job_class is JobClass.STANDARD


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        (types_pb2.ImageOptions(), "INVALID_ARGUMENT", "image.prompt"),
        (types_pb2.ImageOptions(prompt="x", width=100_000), "INVALID_ARGUMENT", "image.width"),
        (types_pb2.ImageOptions(prompt="x", height=4_294_967_288), "INVALID_ARGUMENT", "image.height"),
        (types_pb2.ImageOptions(prompt="x", width=63), "INVALID_ARGUMENT", "image.width"),
        (types_pb2.ImageOptions(prompt="x", steps=10_000), "INVALID_ARGUMENT", "image.steps"),
        (types_pb2.ImageOptions(prompt="x", steps=51), "INVALID_ARGUMENT", "image.steps"),
        (types_pb2.ImageOptions(prompt="x", guidance=float("nan")), "INVALID_ARGUMENT", "image.guidance"),
        (types_pb2.ImageOptions(prompt="x", guidance=31), "INVALID_ARGUMENT", "image.guidance"),
        (types_pb2.ImageOptions(prompt="x", scheduler="magic"), "INVALID_ARGUMENT", "image.scheduler"),
        (types_pb2.ImageOptions(prompt="x", mime="image/gif"), "INVALID_ARGUMENT", "image.mime"),
        (types_pb2.ImageOptions(prompt="x", quality=0), "INVALID_ARGUMENT", "image.quality"),
        (types_pb2.ImageOptions(prompt="x", preview_every=151), "INVALID_ARGUMENT", "image.preview_every"),
        (types_pb2.ImageOptions(prompt="x", cache_level=77), "INVALID_ARGUMENT", "image.cache_level"),  # type: ignore[arg-type]
        (
            types_pb2.ImageOptions(prompt="x", loras=[types_pb2.LoraWeight(name="a")]),
            "NOT_FOUND",
            "image.loras[0].name",
        ),
        (
            types_pb2.ImageOptions(prompt="x", loras=[types_pb2.LoraWeight(name="ink", weight=9)]),
            "INVALID_ARGUMENT",
            "image.loras[0].weight",
        ),
        (
            types_pb2.ImageOptions(prompt="x", loras=[types_pb2.LoraWeight(name="ink")] * 2),
            "INVALID_ARGUMENT",
            "image.loras[1].name",
        ),
        (
            types_pb2.ImageOptions(prompt="x", loras=[types_pb2.LoraWeight(name="ink")] * 9),
            "INVALID_ARGUMENT",
            "image.loras",
        ),
        (
            types_pb2.ImageOptions(prompt="x", init_image=types_pb2.ReferenceImage()),
            "INVALID_ARGUMENT",
            "image.init_image.data",
        ),
        (
            types_pb2.ImageOptions(prompt="x", init_image=types_pb2.ReferenceImage(data=b"x", strength=0)),
            "INVALID_ARGUMENT",
            "image.init_image.strength",
        ),
        (
            types_pb2.ImageOptions(prompt="x", control_image=types_pb2.ReferenceImage(data=b"x")),
            "UNIMPLEMENTED",
            "image.control_image",
        ),
    ],
)
async def test_bad_input_names_the_field(
    channel: grpc.aio.Channel, link: FakeLink, options: types_pb2.ImageOptions, code: str, field: str
) -> None:
    request = pb.GenerateImageRequest(image=options)
    error = await refused(gateway_pb2_grpc.ImageServiceStub(channel).GenerateImage(request))
    assert (error.code().name, details(error).field) == (code, field)
    assert link.sent == []
