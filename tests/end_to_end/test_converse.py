"""A conversation with the embedded models: one stream, three modalities, a prompt that is revised."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import pytest
from PIL import Image as Picture
from upbeat.v1.types_pb2 import ImageOptions, Sampling, ServiceClass, ServiceOptions

from clients.client import Upbeat
from clients.events import Audio, Done, Event, Image, Token, Transcript
from clients.talk import Talk

PROMPT = "Could you tell me about a small yellow house on a hill?"
SHORT = Sampling(max_tokens=40)


async def events(talk: Talk) -> list[Event]:
    return [event async for event in talk]


def text_of(found: list[Event]) -> str:
    return "".join(event.text for event in found if isinstance(event, Token))


def done_of(found: list[Event]) -> Done:
    last = found[-1]
    assert isinstance(last, Done)
    return last


async def something_else(upbeat: Upbeat) -> None:
    """Two other answers: between them the device has had time for what it may do ahead."""
    for _ in range(2):
        assert [event async for event in upbeat.generate("Hello", sampling=Sampling(max_tokens=2))]


async def test_text_speech_and_image_arrive_interleaved(upbeat: Upbeat) -> None:
    async with upbeat.converse(
        modalities=("text", "speech", "image"), sampling=SHORT, image=ImageOptions(steps=8, preview_every=2)
    ) as talk:
        assert talk.ready.audio_sample_rate >= 16_000
        await talk.append("Could you tell me about a big ")
        await talk.revise(len("Could you tell me about a "), PROMPT[len("Could you tell me about a ") :])
        await talk.commit()
        found = await events(talk)
    kinds = [type(event) for event in found]
    done = done_of(found)
    assert done.finish_reason in ("stop", "length")
    assert [event.sequence for event in found] == list(
        range(found[0].sequence, found[0].sequence + len(found))
    )
    audio = [event for event in found if isinstance(event, Audio)]
    images = [event for event in found if isinstance(event, Image)]
    assert kinds.index(Token) < kinds.index(Audio)
    assert kinds.index(Image) < len(kinds) - 1 - kinds[::-1].index(Audio), "previews come while it speaks"
    assert [image.final for image in images] == [False] * (len(images) - 1) + [True]
    assert len(images) >= 3
    picture = Picture.open(io.BytesIO(images[-1].data))
    assert (picture.format, picture.size) == ("PNG", (128, 128))
    samples = np.frombuffer(b"".join(event.pcm16 for event in audio), np.int16)
    assert np.abs(samples).max() > 1000
    assert [event.start_ms for event in audio] == sorted(event.start_ms for event in audio)
    timings = done.timings
    assert 0 < timings.first_token_ms < timings.first_audio_ms < timings.total_ms
    assert 0 < timings.first_preview_ms < timings.image_ms <= timings.total_ms
    assert set(timings.jobs) == {"text", "speech", "image"}
    assert done.usage.evaluations == 8


async def test_a_prompt_in_pieces_is_answered_like_the_whole(upbeat: Upbeat) -> None:
    whole = "".join(
        [event.text async for event in upbeat.generate(PROMPT, sampling=SHORT) if isinstance(event, Token)]
    )
    async with upbeat.converse(sampling=SHORT) as talk:
        for piece in ("Could you te", "ll me abut", " a small"):
            await talk.append(piece)
            await something_else(upbeat)
        await talk.revise(len("Could you tell me ab"), PROMPT[len("Could you tell me ab") :])
        await talk.commit()
        found = await events(talk)
    assert text_of(found) == whole
    assert whole.strip()
    assert done_of(found).usage.reused_tokens > 0


async def test_the_conversation_goes_on(upbeat: Upbeat) -> None:
    async with upbeat.converse(sampling=SHORT) as talk:
        for prompt in ("Hello!", "What is two plus three?"):
            await talk.append(prompt)
            await talk.commit()
            assert done_of(await events(talk)).finish_reason in ("stop", "length")


async def test_an_interruption_ends_the_turn_at_once(upbeat: Upbeat) -> None:
    async with upbeat.converse(modalities=("text", "speech")) as talk:
        await talk.append(PROMPT)
        await talk.commit()
        found: list[Event] = []
        async for event in talk:
            found.append(event)
            if isinstance(event, Audio) and len(found) < 1000:
                await talk.interrupt(played_ms=40)
                break
        found += await events(talk)
        assert done_of(found).finish_reason == "interrupted"
        await talk.append("Hello again.")
        await talk.commit()
        assert done_of(await events(talk)).finish_reason in ("stop", "length")


async def test_a_voice_turn_takes_the_device_from_an_image_and_changes_no_pixel(upbeat: Upbeat) -> None:
    async def draw() -> tuple[bytes, Done]:
        options = ImageOptions(steps=20, seed=3)
        found = [event async for event in upbeat.draw("a green star", image=options)]
        image, done = found[-2:]
        assert isinstance(image, Image) and isinstance(done, Done)
        return image.data, done

    alone, _ = await draw()
    for _ in range(6):  # a turn that comes between two denoising steps preempts nothing
        drawing = asyncio.create_task(draw())
        async with upbeat.converse(modalities=("text", "speech"), sampling=SHORT) as talk:
            await talk.append(PROMPT)
            await talk.commit()
            assert done_of(await events(talk)).finish_reason in ("stop", "length")
        disturbed, done = await drawing
        assert disturbed == alone
        if done.timings.preemptions:
            return
    pytest.fail("no voice turn of six cut into its image")


async def test_what_is_said_can_be_heard(upbeat: Upbeat) -> None:
    spoken = [event async for event in upbeat.synthesize("one two three four five")]
    audio = [event for event in spoken if isinstance(event, Audio)]
    rate = audio[0].sample_rate
    pcm16 = b"".join(event.pcm16 for event in audio) + bytes(rate * 2)

    async def pieces(size: int = 3200) -> AsyncIterator[bytes]:
        for start in range(0, len(pcm16), size):
            yield pcm16[start : start + size]

    heard = [event async for event in upbeat.transcribe(pieces(), rate)]
    finals = [event for event in heard if isinstance(event, Transcript) and event.is_final]
    assert finals
    assert finals[-1].text


async def test_classes_and_models_are_listed(upbeat: Upbeat) -> None:
    models = (await upbeat.models()).models
    assert {model.modality for model in models if model.is_default} == {1, 2, 3, 4}
    service = ServiceOptions(service_class=ServiceClass.SERVICE_CLASS_BATCH)
    found = [event async for event in upbeat.generate("Hello", sampling=SHORT, service=service)]
    assert isinstance(found[-1], Done)
