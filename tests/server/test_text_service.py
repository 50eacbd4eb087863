"""GenerateText on the wire."""

from __future__ import annotations

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import gateway_pb2_grpc, types_pb2

from pipelines.messages import JobClass, Message, PromptRevision, Sampling, TextRequest
from tests.fakes import FakeLink
from tests.grpc_calls import details, refused


async def test_tokens_then_done(channel: grpc.aio.Channel, link: FakeLink) -> None:
    stub = gateway_pb2_grpc.TextServiceStub(channel)
    events = [event async for event in stub.GenerateText(pb.GenerateTextRequest(prompt="Hi"))]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.token.text for event in events) == "Hello there, friend."
    done = events[-1].done
    assert done.finish_reason == types_pb2.FINISH_REASON_STOP
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (5, 3)
    assert done.timings.HasField("first_token_ms")
    assert done.timings.queue_ms == 1.0
    assert done.timings.preemptions == 1
    assert done.timings.jobs["text"].slices == 3
    assert {(event.session_id, event.turn_id) for event in events} == {
        (events[0].session_id, events[0].turn_id)
    }


async def test_what_goes_down(channel: grpc.aio.Channel, link: FakeLink) -> None:
    request = pb.GenerateTextRequest(
        model="fake-text",
        prompt="Hi",
        history=[
            types_pb2.ChatMessage(role=types_pb2.ROLE_SYSTEM, content="Be brief."),
            types_pb2.ChatMessage(role=types_pb2.ROLE_USER, content="A?"),
            types_pb2.ChatMessage(role=types_pb2.ROLE_ASSISTANT, content="B."),
        ],
        sampling=types_pb2.Sampling(temperature=0.5, seed=7, max_tokens=9, stop=["x"], logprobs=2),
        service=types_pb2.ServiceOptions(service_class=types_pb2.SERVICE_CLASS_BATCH),
    )
    assert [
        event async for event in gateway_pb2_grpc.TextServiceStub(channel).GenerateText(request, timeout=60)
    ]
    (submit,) = link.submitted(TextRequest)
    assert submit.request == TextRequest(
        (Message("system", "Be brief."), Message("user", "A?"), Message("assistant", "B.")),
        Sampling(temperature=0.5, seed=7, max_tokens=9, stop=("x",), logprobs=2),
    )
    assert submit.first == PromptRevision(1, "Hi", final=True)
    assert (submit.pipeline, submit.tenant, submit.job_class) == ("fake-text", "local", JobClass.BATCH)
    assert submit.committed
    assert 50 < submit.deadline_in_s <= 61


def _sampled(**values: object) -> pb.GenerateTextRequest:
    return pb.GenerateTextRequest(prompt="Hi", sampling=types_pb2.Sampling(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (pb.GenerateTextRequest(prompt="Hi", model="gone"), "NOT_FOUND", "model"),
        (pb.GenerateTextRequest(), "INVALID_ARGUMENT", "prompt"),
        (pb.GenerateTextRequest(prompt=" \n"), "INVALID_ARGUMENT", "prompt"),
        (pb.GenerateTextRequest(prompt="x" * 200_001), "INVALID_ARGUMENT", "prompt"),
        (_sampled(temperature=float("nan")), "INVALID_ARGUMENT", "sampling.temperature"),
        (_sampled(temperature=2.1), "INVALID_ARGUMENT", "sampling.temperature"),
        (_sampled(top_p=0), "INVALID_ARGUMENT", "sampling.top_p"),
        (_sampled(min_p=float("inf")), "INVALID_ARGUMENT", "sampling.min_p"),
        (_sampled(repetition_penalty=0), "INVALID_ARGUMENT", "sampling.repetition_penalty"),
        (_sampled(repetition_penalty=1e-38), "INVALID_ARGUMENT", "sampling.repetition_penalty"),
        (_sampled(presence_penalty=-3), "INVALID_ARGUMENT", "sampling.presence_penalty"),
        (_sampled(max_tokens=0), "INVALID_ARGUMENT", "sampling.max_tokens"),
        (_sampled(max_tokens=513), "INVALID_ARGUMENT", "sampling.max_tokens"),
        (_sampled(logprobs=21), "INVALID_ARGUMENT", "sampling.logprobs"),
        (_sampled(stop=["x"] * 9), "INVALID_ARGUMENT", "sampling.stop"),
        (_sampled(stop=["x", ""]), "INVALID_ARGUMENT", "sampling.stop[1]"),
        (_sampled(json_schema="x" * 65_537), "INVALID_ARGUMENT", "sampling.json_schema"),
        (_sampled(regex="x" * 65_537), "INVALID_ARGUMENT", "sampling.regex"),
        (
            pb.GenerateTextRequest(prompt="Hi", service=types_pb2.ServiceOptions(service_class=9)),  # type: ignore[arg-type]
            "INVALID_ARGUMENT",
            "service.service_class",
        ),
        (
            pb.GenerateTextRequest(prompt="Hi", history=[types_pb2.ChatMessage(content="x")]),
            "INVALID_ARGUMENT",
            "history[0].role",
        ),
        (
            pb.GenerateTextRequest(prompt="Hi", history=[types_pb2.ChatMessage(role=types_pb2.ROLE_USER)]),
            "INVALID_ARGUMENT",
            "history[0].content",
        ),
        (
            pb.GenerateTextRequest(
                prompt="Hi",
                history=[
                    types_pb2.ChatMessage(role=types_pb2.ROLE_USER, content="a"),
                    types_pb2.ChatMessage(role=types_pb2.ROLE_SYSTEM, content="b"),
                ],
            ),
            "INVALID_ARGUMENT",
            "history[1].role",
        ),
    ],
)
async def test_bad_input_names_the_field(
    channel: grpc.aio.Channel, link: FakeLink, request_: pb.GenerateTextRequest, code: str, field: str
) -> None:
    error = await refused(gateway_pb2_grpc.TextServiceStub(channel).GenerateText(request_))
    assert error.code().name == code
    assert details(error).field == field
    assert link.sent == []
