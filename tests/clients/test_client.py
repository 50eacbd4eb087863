from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from clients import (
    Audio,
    ClientError,
    Done,
    Image,
    ImageOptions,
    Sampling,
    Token,
    Transcript,
    Upbeat,
    VoiceOptions,
)
from tests.clients.scripted_gateway import Script, status

STOP = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)


async def pieces(*values: str) -> AsyncIterator[str]:
    for value in values:
        yield value


async def sound(*values: bytes) -> AsyncIterator[bytes]:
    for value in values:
        yield value


async def test_generate(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append(
        [
            gateway.GenerateTextResponse(sequence=1, token=types.TokenEvent(text="Hello", tokens=1)),
            gateway.GenerateTextResponse(sequence=2, done=STOP),
        ]
    )
    events = [event async for event in upbeat.generate("Hi", sampling=Sampling(max_tokens=5))]
    assert [type(event) for event in events] == [Token, Done]
    assert script.heard[0] == [gateway.GenerateTextRequest(prompt="Hi", sampling=Sampling(max_tokens=5))]


async def test_synthesize_sends_text_as_it_comes(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append(
        [
            gateway.SynthesizeSpeechResponse(audio=types.AudioEvent(pcm16=b"\0\0", sample_rate=16_000)),
            gateway.SynthesizeSpeechResponse(done=STOP),
        ]
    )
    voice = VoiceOptions(rate=1.5)
    events = [event async for event in upbeat.synthesize(pieces("Hello ", "there."), voice=voice)]
    assert [type(event) for event in events] == [Audio, Done]
    assert [request.append.text for request in script.heard[0][1:]] == ["Hello ", "there."]
    assert script.heard[0][0].start == gateway.SynthesizeSpeechStart(voice=voice, unpaced=True)


async def test_transcribe(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append(
        [
            gateway.TranscribeSpeechResponse(transcript=types.TranscriptEvent(text="a boat", is_final=True)),
            gateway.TranscribeSpeechResponse(done=STOP),
        ]
    )
    events = [event async for event in upbeat.transcribe(sound(b"\0\0", b"\1\1"), 16_000)]
    assert isinstance(events[0], Transcript)
    assert (events[0].text, events[0].is_final) == ("a boat", True)
    assert [request.audio.pcm16 for request in script.heard[0][1:]] == [b"\0\0", b"\1\1"]


async def test_draw_keeps_the_callers_options_as_they_were(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append(
        [
            gateway.GenerateImageResponse(image=types.ImageEvent(preview=True, step=4, steps=8, parts=1)),
            gateway.GenerateImageResponse(image=types.ImageEvent(final=True, step=8, steps=8, parts=1)),
            gateway.GenerateImageResponse(done=STOP),
        ]
    )
    options = ImageOptions(steps=8)
    events = [event async for event in upbeat.draw("a boat", image=options)]
    assert [event.final for event in events if isinstance(event, Image)] == [False, True]
    assert options == ImageOptions(steps=8)
    assert script.heard[0][0].image == ImageOptions(prompt="a boat", steps=8)


async def test_models_and_health(upbeat: Upbeat) -> None:
    assert [model.name for model in (await upbeat.models()).models] == ["tiny"]
    assert await upbeat.health() == "SERVING"


async def test_errors_carry_field_reason_and_when_to_come_back(upbeat: Upbeat, script: Script) -> None:
    script.scripts.append([status(8, "64 jobs wait already", retry_s=3)])
    with pytest.raises(ClientError) as caught:
        _ = [event async for event in upbeat.generate("Hi")]
    assert (caught.value.code, caught.value.retry_after_s) == ("RESOURCE_EXHAUSTED", 3.0)
    assert not caught.value.connection_lost


async def test_a_failed_done_is_raised(upbeat: Upbeat, script: Script) -> None:
    failed = types.DoneEvent(
        finish_reason=types.FINISH_REASON_FAILED,
        error=status(3, "image.width: at most 1024", "image.width").SerializeToString(),
    )
    script.scripts.append([gateway.GenerateImageResponse(done=failed)])
    with pytest.raises(ClientError, match="at most 1024") as caught:
        _ = [event async for event in upbeat.draw("a boat")]
    assert caught.value.field == "image.width"


async def test_no_server_is_a_lost_connection() -> None:
    async with Upbeat("127.0.0.1:1") as nobody:
        with pytest.raises(ClientError) as caught:
            await nobody.models()
    assert caught.value.connection_lost


async def test_what_the_callers_pieces_raise_leaves_as_it_is(upbeat: Upbeat) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "Hello "
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        _ = [event async for event in upbeat.synthesize(broken())]
    assert await upbeat.health() == "SERVING"


@pytest.mark.parametrize(
    ("target", "token", "field"), [("", "", "target"), ("here:1", "a\nb", "token"), ("here:1", "ü", "token")]
)
def test_what_no_call_could_be_made_with(target: str, token: str, field: str) -> None:
    with pytest.raises(ClientError) as caught:
        Upbeat(target, token=token)
    assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", field)


async def test_a_connection_has_to_be_entered() -> None:
    closed = Upbeat("127.0.0.1:1")
    async with closed:
        pass
    for client in (Upbeat("127.0.0.1:1"), closed):
        with pytest.raises(ClientError, match="async with") as caught:
            client.generate("Hi")
        assert caught.value.code == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modalities": ("video",)}, "start.modalities: one of text, speech, image, not 'video'"),
        ({"partial_prompts": "soon"}, "start.partial_prompt_mode: one of off, .*, not 'soon'"),
        ({"history": [("user", "Hi"), ("robot", "Ho")]}, r"history\[1\].role: one of .*, not 'robot'"),
        ({"resume_window_s": -1}, "start.resume_window_ms: 0 to 4294967295, not -1000"),
        ({"audio_sample_rate": -1}, "start.audio_sample_rate: 0 to"),
    ],
)
async def test_what_the_wire_has_no_room_for_is_named(
    upbeat: Upbeat, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClientError, match=words):
        upbeat.converse(**options)


async def test_leaving_early_cancels_the_call(upbeat: Upbeat, script: Script) -> None:
    token = gateway.GenerateTextResponse(token=types.TokenEvent(text="x", tokens=1))
    script.scripts.append([token] * 1000)
    stream = upbeat.generate("Hi")
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert await upbeat.health() == "SERVING"
