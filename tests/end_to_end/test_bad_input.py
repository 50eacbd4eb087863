"""Bad input at the real server: a clear error that names the field and the limit, and nobody else notices."""

from __future__ import annotations

import asyncio
import io
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import PIL.Image
import pytest
from upbeat.v1.types_pb2 import ImageOptions, LoraWeight, ReferenceImage, Sampling, VoiceOptions

from clients.client import Upbeat
from clients.errors import ClientError
from clients.events import Done, Image, Token

Attempt = Callable[[Upbeat], Awaitable[object]]


async def drained(stream: AsyncIterator[object]) -> list[object]:
    return [event async for event in stream]


async def _revise_too_far(upbeat: Upbeat) -> None:
    async with upbeat.converse() as talk:
        await talk.append("héllo")
        await talk.revise(6, "x")
        await drained(aiter(talk))


async def _revise_after_commit(upbeat: Upbeat) -> None:
    async with upbeat.converse() as talk:
        await talk.append("Hello")
        await talk.commit()
        await talk.revise(0, "Bye")
        await drained(aiter(talk))
        await drained(aiter(talk))


async def _empty_commit(upbeat: Upbeat) -> None:
    async with upbeat.converse() as talk:
        await talk.commit("")
        (done,) = await drained(aiter(talk))
        assert isinstance(done, Done) and done.error is not None
        raise done.error


async def _odd_audio(upbeat: Upbeat) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"\0\1\2"

    await drained(upbeat.transcribe(pieces(), 16_000))


def talk(**options: object) -> Attempt:
    async def attempt(upbeat: Upbeat) -> None:
        async with upbeat.converse(**options) as talk:  # type: ignore[arg-type]
            await talk.append("Hello")
            await talk.commit()
            await drained(aiter(talk))

    return attempt


def trace(seconds: float) -> Attempt:
    return lambda upbeat: upbeat.trace(seconds)


def bomb(side: int) -> bytes:
    """A small file of a large image."""
    file = io.BytesIO()
    PIL.Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def draw(**options: object) -> Attempt:
    return lambda upbeat: drained(upbeat.draw("a red star", image=ImageOptions(**options)))  # type: ignore[arg-type]


def write(prompt: str = "Hello", model: str = "", **options: object) -> Attempt:
    return lambda upbeat: drained(
        upbeat.generate(prompt, model=model, sampling=Sampling(**options))  # type: ignore[arg-type]
    )


def say(text: str = "Hello", **options: object) -> Attempt:
    return lambda upbeat: drained(upbeat.synthesize(text, voice=VoiceOptions(**options)))  # type: ignore[arg-type]


MANY = json.dumps({"type": "object", "properties": {f"p{i}": {} for i in range(4000)}})
BOMB = bomb(8000)
BAD: list[tuple[str, Attempt, str, str]] = [
    ("unknown model", write(model="nobody"), "NOT_FOUND", "nobody"),
    ("empty prompt", write(""), "INVALID_ARGUMENT", "prompt"),
    ("prompt beyond the context", write("word " * 30_000), "INVALID_ARGUMENT", "prompt"),
    ("offset beyond the prompt", _revise_too_far, "INVALID_ARGUMENT", "from_char"),
    ("revise after commit", _revise_after_commit, "FAILED_PRECONDITION", "revise"),
    ("empty commit", _empty_commit, "INVALID_ARGUMENT", "prompt"),
    ("huge image", draw(width=100_000, height=100_000), "INVALID_ARGUMENT", "image.width"),
    ("image without size", draw(width=0), "INVALID_ARGUMENT", "image.width"),
    ("no steps", draw(steps=0), "INVALID_ARGUMENT", "image.steps"),
    ("crooked image", draw(width=129), "INVALID_ARGUMENT", "image.width"),
    ("too many steps", draw(steps=10_000), "INVALID_ARGUMENT", "image.steps"),
    ("rare previews", draw(preview_ms=100_000), "INVALID_ARGUMENT", "image.preview_ms"),
    ("NaN guidance", draw(guidance=math.nan), "INVALID_ARGUMENT", "image.guidance"),
    ("unknown scheduler", draw(scheduler="magic"), "INVALID_ARGUMENT", "image.scheduler"),
    ("unknown format", draw(mime="image/gif"), "INVALID_ARGUMENT", "image.mime"),
    ("NaN temperature", write(temperature=math.nan), "INVALID_ARGUMENT", "sampling.temperature"),
    ("top_p of 0", write(top_p=0.0), "INVALID_ARGUMENT", "sampling.top_p"),
    ("no tokens", write(max_tokens=0), "INVALID_ARGUMENT", "sampling.max_tokens"),
    ("odd PCM bytes", _odd_audio, "INVALID_ARGUMENT", "pcm16"),
    ("unknown voice", say(voice="nobody"), "NOT_FOUND", "voice"),
    ("silent text", say(""), "INVALID_ARGUMENT", "text"),
    ("rate of 9", say(rate=9.0), "INVALID_ARGUMENT", "rate"),
    ("JSON schema", write(json_schema='{"type": "strin"}'), "INVALID_ARGUMENT", "sampling.json_schema"),
    ("regex", write(regex="[a-z"), "INVALID_ARGUMENT", "sampling.regex"),
    (
        "deep schema",
        write(json_schema='{"items":' * 2000 + "{}" + "}" * 2000),
        "INVALID_ARGUMENT",
        "recursion",
    ),
    ("schema too large", write(json_schema=MANY), "INVALID_ARGUMENT", "sampling.json_schema"),
    (
        "schema elsewhere",
        write(json_schema='{"$ref": "file:///x"}'),
        "INVALID_ARGUMENT",
        "sampling.json_schema",
    ),
    ("unknown keyword", write(json_schema='{"not": {}}'), "INVALID_ARGUMENT", "sampling.json_schema"),
    ("regex too complex", write(regex="((a{1000}){1000}){1000}"), "INVALID_ARGUMENT", "sampling.regex"),
    ("regex, later", write(regex="b{3}((a{1000}){1000}){1000}"), "INVALID_ARGUMENT", "sampling.regex"),
    ("long name", write(model="中" * 100_000), "NOT_FOUND", "model"),
    ("long scheduler", draw(scheduler="x" * 1_000_000), "INVALID_ARGUMENT", "image.scheduler"),
    ("unknown add-on", draw(loras=[LoraWeight(name="x")]), "NOT_FOUND", "image.loras[0].name"),
    ("many add-ons", draw(loras=[LoraWeight(name="x")] * 1000), "INVALID_ARGUMENT", "image.loras"),
    ("unknown cache level", draw(cache_level=9), "INVALID_ARGUMENT", "image.cache_level"),
    ("no init image", draw(init_image=ReferenceImage()), "INVALID_ARGUMENT", "image.init_image.data"),
    (
        "odd init image",
        draw(init_image=ReferenceImage(data=b"GIF89a")),
        "INVALID_ARGUMENT",
        "image.init_image.data",
    ),
    ("huge init image", draw(init_image=ReferenceImage(data=BOMB)), "INVALID_ARGUMENT", "4194304 pixels"),
    (
        "NaN strength",
        draw(init_image=ReferenceImage(data=BOMB, strength=math.nan)),
        "INVALID_ARGUMENT",
        "image.init_image.strength",
    ),
    ("control image", draw(control_image=ReferenceImage(data=BOMB)), "UNIMPLEMENTED", "image.control_image"),
    ("unknown policy", talk(policy="magic"), "INVALID_ARGUMENT", "start.partial_prompt_policy"),
    ("long number", talk(policy="pause=000000500" + "9" * 5000), "INVALID_ARGUMENT", "10 to 60000"),
    ("thoughts without mode", talk(thoughts=True), "INVALID_ARGUMENT", "start.thoughts"),
    ("early without mode", talk(emit_before_commit=True), "INVALID_ARGUMENT", "start.emit_before_commit"),
    ("trace of 61 s", trace(61.0), "INVALID_ARGUMENT", "seconds"),
    ("both", write(regex="[a-z]", json_schema="{}"), "INVALID_ARGUMENT", "sampling.regex"),
]


async def witness(upbeat: Upbeat) -> str:
    stream = upbeat.generate("Tell me about the sea.", sampling=Sampling(max_tokens=60))
    return "".join([event.text async for event in stream if isinstance(event, Token)])


@pytest.mark.parametrize(("what", "attempt", "code", "names"), BAD, ids=[row[0] for row in BAD])
async def test_bad_input(upbeat: Upbeat, what: str, attempt: Attempt, code: str, names: str) -> None:
    other = asyncio.create_task(witness(upbeat))
    with pytest.raises(ClientError) as caught:
        await attempt(upbeat)
    assert caught.value.code == code
    assert names in f"{caught.value.field} {caught.value.message}"
    assert await other == await witness(upbeat)


async def test_a_message_of_100_megabytes_is_refused(upbeat: Upbeat) -> None:
    other = asyncio.create_task(witness(upbeat))
    with pytest.raises(ClientError) as caught:
        await drained(upbeat.generate("a" * 100_000_000))
    assert caught.value.code in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")
    assert await other


async def test_streams_that_are_opened_and_abandoned_hurt_nobody(upbeat: Upbeat, address: str) -> None:
    async with Upbeat(address) as careless:
        for _ in range(100):
            talk = careless.converse()
            await talk.__aenter__()
            await talk.append("Hello")
    assert await witness(upbeat)


@pytest.mark.parametrize("unit", ["a", ". ", "\n"])
async def test_a_long_prompt_under_any_policy_holds_up_nobody(upbeat: Upbeat, unit: str) -> None:
    async with asyncio.timeout(10.0), upbeat.converse(partial_prompts="think_ahead", policy="clause") as long:
        await long.append("x" + unit * 50_000)
        assert await witness(upbeat)
    async with asyncio.timeout(10.0), upbeat.converse(partial_prompts="answer_ahead") as long:
        await long.append("x" + unit * 50_000)
        assert await witness(upbeat)


@pytest.mark.slow
async def test_two_thousand_streams_opened_and_abandoned(upbeat: Upbeat, address: str) -> None:
    for _ in range(20):
        async with Upbeat(address) as careless:
            for _ in range(100):
                talk = careless.converse()
                await talk.__aenter__()
                await talk.append("Hello")
    assert await witness(upbeat)


async def test_a_client_that_does_not_read_holds_up_nobody(upbeat: Upbeat, address: str) -> None:
    async with Upbeat(address) as sleepy:
        stream = sleepy.generate("Tell me about the sea.", sampling=Sampling(max_tokens=200, temperature=1.0))
        await anext(stream)
        for _ in range(5):
            assert await witness(upbeat)
        assert isinstance((await drained(stream))[-1], Done)


async def test_a_client_that_vanishes_in_mid_turn(upbeat: Upbeat, address: str) -> None:
    async with Upbeat(address) as fleeting:
        talk = fleeting.converse(modalities=("text", "speech", "image"))
        await talk.__aenter__()
        await talk.append("Tell me about the sea.")
        await talk.commit()
        async for _ in talk:
            break
    image = (await drained(upbeat.draw("a red star", image=ImageOptions(steps=2))))[-2]
    assert isinstance(image, Image)
    assert await witness(upbeat)
