"""Converse on the wire: whole turns over a fake device."""

from __future__ import annotations

import grpc
import pytest
from upbeat.v1 import gateway_pb2 as pb
from upbeat.v1 import types_pb2

from pipelines.messages import (
    ImageRequest,
    JobClass,
    Message,
    PromptRevision,
    SpeechRequest,
    SpeechText,
    TextRequest,
)
from tests.converse import Client, kinds, spoken
from tests.fakes import Device, FakeLink
from tests.grpc_calls import details

TEXT, SPEECH, IMAGE = types_pb2.MODALITY_TEXT, types_pb2.MODALITY_SPEECH, types_pb2.MODALITY_IMAGE
AHEAD = types_pb2.PARTIAL_PROMPT_MODE_ANSWER_AHEAD
THINK = types_pb2.PARTIAL_PROMPT_MODE_THINK_AHEAD


async def test_a_text_turn(channel: grpc.aio.Channel, link: FakeLink) -> None:
    client = Client(channel)
    ready = await client.start()
    assert ready.ready.models.text == "fake-text"
    assert (ready.session_id != "", ready.turn_id, ready.sequence) == (True, "", 0)
    await client.append("Hi")
    await client.commit()
    events = await client.turn()
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {event.turn_id for event in events} == {f"{ready.session_id}.1"}
    assert spoken(events) == "Hello there, friend."
    done = events[-1].turn_done
    assert done.finish_reason == types_pb2.FINISH_REASON_STOP
    assert done.usage.completion_tokens == 3
    assert done.timings.first_token_ms <= done.timings.last_token_ms <= done.timings.total_ms
    await client.end()


async def test_history_goes_with_the_next_turn(channel: grpc.aio.Channel, link: FakeLink) -> None:
    client = Client(channel)
    await client.start(history=[types_pb2.ChatMessage(role=types_pb2.ROLE_SYSTEM, content="Be kind.")])
    for prompt in ("Hi", "And?"):
        await client.commit(prompt)
        await client.turn()
    await client.end()
    submits = link.submitted(TextRequest)
    assert [submit.turn_id.rpartition(".")[2] for submit in submits] == ["1", "2"]
    assert submits[1].request == TextRequest(
        (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Hello there, friend."))
    )


async def test_three_modalities_in_one_turn(channel: grpc.aio.Channel, link: FakeLink) -> None:
    client = Client(channel)
    ready = await client.start(SPEECH, IMAGE, voice=types_pb2.VoiceOptions(voice="bob"))
    assert ready.ready.audio_sample_rate == 16_000
    await client.commit("A red ball")
    events = await client.turn()
    await client.end()
    assert set(kinds(events)) == {"token", "audio", "image", "turn_done"}
    done = events[-1].turn_done
    assert set(done.timings.jobs) == {"text", "speech", "image"}
    assert (done.usage.evaluations, done.usage.characters) == (8, len("Hello there, friend."))
    assert done.timings.queue_ms == 3.0
    for mark in ("first_token_ms", "first_audio_ms", "first_preview_ms", "image_ms"):
        assert done.timings.HasField(mark)
    (speech,), (text,), (image,) = (
        link.submitted(kind) for kind in (SpeechRequest, TextRequest, ImageRequest)
    )
    assert speech.job_id < text.job_id
    assert text.consumer == speech.job_id
    assert (speech.job_class, text.job_class, image.job_class) == (
        JobClass.REALTIME,
        JobClass.REALTIME,
        JobClass.STANDARD,
    )
    assert image.request == ImageRequest("A red ball", preview_every=4)
    texts = [each for each in link.inputs(speech.job_id) if isinstance(each, SpeechText)]
    assert "".join(each.text for each in texts) == "Hello there, friend."
    assert [each.final for each in texts] == [False] * (len(texts) - 1) + [True]


async def test_the_model_asks_for_an_image(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(Device(answer="Here: <draw>a red ball</draw> done."))
    client = Client(channel)
    await client.start(
        TEXT,
        IMAGE,
        image=types_pb2.ImageOptions(trigger=types_pb2.IMAGE_TRIGGER_MODEL, steps=9, preview_every=0),
    )
    await client.commit("Draw a ball")
    events = await client.turn()
    await client.end()
    assert spoken(events) == "Here:  done."
    assert "image" in kinds(events)
    assert [submit.request for submit in link.submitted(ImageRequest)] == [
        ImageRequest("a red ball", steps=9)
    ]


async def test_a_large_image_comes_in_parts(channel: grpc.aio.Channel, link: FakeLink) -> None:
    link.reset(Device(image_bytes=(2 << 20) + 5, previews=()))
    client = Client(channel)
    await client.start(IMAGE)
    await client.commit("A ball")
    events = await client.turn()
    await client.end()
    parts = [event.image for event in events[:-1]]
    assert [(part.part, part.parts, part.final, len(part.data)) for part in parts] == [
        (0, 3, True, 1 << 20),
        (1, 3, True, 1 << 20),
        (2, 3, True, 5),
    ]


async def test_the_prompt_is_prefilled_before_the_commit(channel: grpc.aio.Channel, link: FakeLink) -> None:
    client = Client(channel)
    await client.start()
    await client.append("Hello wrold")
    await client.say(revise=pb.ReviseText(from_char=6, text="world"))
    await client.commit()
    await client.turn()
    await client.end()
    (submit,) = link.submitted(TextRequest)
    inputs = link.inputs(submit.job_id)
    assert inputs[-1] == PromptRevision(len(inputs), "Hello world", final=True)


@pytest.mark.parametrize(
    ("start", "code", "field"),
    [
        (pb.ConverseStart(models=types_pb2.ModelChoice(text="gone")), "NOT_FOUND", "start.models.text"),
        (
            pb.ConverseStart(models=types_pb2.ModelChoice(thinker="x")),
            "INVALID_ARGUMENT",
            "start.models.thinker",
        ),
        (pb.ConverseStart(modalities=[4]), "INVALID_ARGUMENT", "start.modalities[0]"),  # type: ignore[list-item]
        (pb.ConverseStart(modalities=[17]), "INVALID_ARGUMENT", "start.modalities[0]"),  # type: ignore[list-item]
        (
            pb.ConverseStart(partial_prompt_mode=AHEAD, partial_prompt_policy="wait_k=0"),
            "INVALID_ARGUMENT",
            "start.partial_prompt_policy",
        ),
        (
            pb.ConverseStart(partial_prompt_mode=THINK, partial_prompt_policy="wait_k"),
            "INVALID_ARGUMENT",
            "start.partial_prompt_policy",
        ),
        (
            pb.ConverseStart(partial_prompt_mode=THINK, models=types_pb2.ModelChoice(thinker="x")),
            "NOT_FOUND",
            "start.models.thinker",
        ),
        (pb.ConverseStart(partial_prompt_mode=9), "INVALID_ARGUMENT", "start.partial_prompt_mode"),  # type: ignore[arg-type]
        (pb.ConverseStart(partial_prompt_policy="x"), "INVALID_ARGUMENT", "start.partial_prompt_policy"),
        (pb.ConverseStart(emit_before_commit=True), "INVALID_ARGUMENT", "start.emit_before_commit"),
        (pb.ConverseStart(thoughts=True), "INVALID_ARGUMENT", "start.thoughts"),
        (pb.ConverseStart(resume_window_ms=60_001), "INVALID_ARGUMENT", "start.resume_window_ms"),
        (pb.ConverseStart(audio_sample_rate=7999), "INVALID_ARGUMENT", "start.audio_sample_rate"),
        (pb.ConverseStart(commit_on_silence=True), "INVALID_ARGUMENT", "start.commit_on_silence"),
        (
            pb.ConverseStart(audio_sample_rate=16_000, interrupt_on_speech=True),
            "INVALID_ARGUMENT",
            "start.interrupt_on_speech",
        ),
        (
            pb.ConverseStart(modalities=[SPEECH], voice=types_pb2.VoiceOptions(voice="eve")),
            "NOT_FOUND",
            "start.voice.voice",
        ),
        (
            pb.ConverseStart(modalities=[SPEECH], voice=types_pb2.VoiceOptions(rate=float("nan"))),
            "INVALID_ARGUMENT",
            "start.voice.rate",
        ),
        (
            pb.ConverseStart(modalities=[IMAGE], image=types_pb2.ImageOptions(width=100_000)),
            "INVALID_ARGUMENT",
            "start.image.width",
        ),
    ],
)
async def test_bad_starts(
    channel: grpc.aio.Channel, link: FakeLink, start: pb.ConverseStart, code: str, field: str
) -> None:
    client = Client(channel)
    await client.say(start=start)
    error = await client.error()
    assert (error.code().name, details(error).field) == (code, field)


@pytest.mark.parametrize(
    ("actions", "code", "field"),
    [
        ([pb.ConverseRequest(commit=pb.CommitPrompt())], "INVALID_ARGUMENT", "commit.text"),
        ([pb.ConverseRequest(commit=pb.CommitPrompt(text=" "))], "INVALID_ARGUMENT", "commit.text"),
        ([pb.ConverseRequest(append=pb.AppendText(text="x" * 200_001))], "INVALID_ARGUMENT", "append.text"),
        (
            [
                pb.ConverseRequest(append=pb.AppendText(text="é")),
                pb.ConverseRequest(revise=pb.ReviseText(from_char=2, text="x")),
            ],
            "INVALID_ARGUMENT",
            "revise.from_char",
        ),
        ([pb.ConverseRequest(revise=pb.ReviseText(from_char=1))], "INVALID_ARGUMENT", "revise.from_char"),
        (
            [
                pb.ConverseRequest(commit=pb.CommitPrompt(text="Hi")),
                pb.ConverseRequest(revise=pb.ReviseText(from_char=0, text="x")),
            ],
            "FAILED_PRECONDITION",
            "revise.text",
        ),
        (
            [
                pb.ConverseRequest(commit=pb.CommitPrompt(text="Hi")),
                pb.ConverseRequest(commit=pb.CommitPrompt()),
            ],
            "FAILED_PRECONDITION",
            "commit",
        ),
        ([pb.ConverseRequest(start=pb.ConverseStart())], "FAILED_PRECONDITION", "start"),
        ([pb.ConverseRequest(cancel=pb.CancelTurn(turn_id="x"))], "NOT_FOUND", "cancel.turn_id"),
        ([pb.ConverseRequest(audio=pb.AudioInput(pcm16=b"12"))], "FAILED_PRECONDITION", "audio"),
        ([pb.ConverseRequest(audio=pb.AudioInput(pcm16=b"1"))], "INVALID_ARGUMENT", "audio.pcm16"),
        ([pb.ConverseRequest()], "INVALID_ARGUMENT", "action"),
    ],
)
async def test_bad_actions(
    channel: grpc.aio.Channel, link: FakeLink, actions: list[pb.ConverseRequest], code: str, field: str
) -> None:
    link.reset(None)
    client = Client(channel)
    await client.start()
    for action in actions:
        await client.call.write(action)
    error = await client.error()
    assert (error.code().name, details(error).field) == (code, field)
