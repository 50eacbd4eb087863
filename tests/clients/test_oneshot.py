from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types
from upbeat.v1.types_pb2 import ImageOptions, VoiceOptions

from clients import oneshot
from clients.client import Upbeat
from clients.media import BadFile, read_wav, write_wav
from tests.clients.scripted_gateway import Script

STOP = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_say_writes_a_wav(upbeat: Upbeat, script: Script, console: Console, tmp_path: Path) -> None:
    audio = types.AudioEvent(pcm16=b"\1\0" * 80, sample_rate=8_000)
    script.scripts.append(
        [gateway.SynthesizeSpeechResponse(audio=audio), gateway.SynthesizeSpeechResponse(done=STOP)]
    )
    out = tmp_path / "a.wav"
    await oneshot.say(upbeat, console, "Hello.", out, "", VoiceOptions(rate=1.2))
    assert read_wav(out) == (b"\1\0" * 80, 8_000)
    assert str(out) in printed(console)
    assert script.heard[0][1].append.text == "Hello."


async def test_silence_is_an_error(upbeat: Upbeat, script: Script, console: Console, tmp_path: Path) -> None:
    script.scripts.append([gateway.SynthesizeSpeechResponse(done=STOP)])
    with pytest.raises(BadFile, match="nothing to say"):
        await oneshot.say(upbeat, console, " ", tmp_path / "a.wav", "", VoiceOptions())


async def test_draw_asks_for_what_the_name_says(
    upbeat: Upbeat, script: Script, console: Console, tmp_path: Path
) -> None:
    image = types.ImageEvent(final=True, step=8, steps=8, mime="image/webp", data=b"123", width=8, height=8)
    script.scripts.append(
        [gateway.GenerateImageResponse(image=image), gateway.GenerateImageResponse(done=STOP)]
    )
    out = tmp_path / "a.webp"
    await oneshot.draw(upbeat, console, "a boat", out, "", ImageOptions(seed=3))
    assert out.read_bytes() == b"123"
    wanted = ImageOptions(prompt="a boat", seed=3, mime="image/webp", preview_every=0)
    assert script.heard[0][0].image == wanted
    with pytest.raises(BadFile, match=r"must end in one of \.jpeg, \.jpg, \.png, \.webp"):
        await oneshot.draw(upbeat, console, "a boat", tmp_path / "a.gif", "", ImageOptions())


async def test_hear_prints_what_is_final(
    upbeat: Upbeat, script: Script, console: Console, tmp_path: Path
) -> None:
    script.scripts.append(
        [
            gateway.TranscribeSpeechResponse(transcript=types.TranscriptEvent(text="a bow")),
            gateway.TranscribeSpeechResponse(transcript=types.TranscriptEvent(text="a boat", is_final=True)),
            gateway.TranscribeSpeechResponse(done=STOP),
        ]
    )
    path = tmp_path / "a.wav"
    write_wav(path, [b"\0\0" * 1000], 8_000)
    await oneshot.hear(upbeat, console, path, "")
    assert printed(console).strip() == "a boat"
    assert b"".join(request.audio.pcm16 for request in script.heard[0][1:]) == b"\0\0" * 1000


async def test_models_are_a_table(upbeat: Upbeat, console: Console) -> None:
    await oneshot.models(upbeat, console)
    assert "tiny" in printed(console)
    assert "llama" in printed(console)


def test_limits_in_words() -> None:
    sizes = [gateway.ImageSize(width=64, height=64)]
    assert oneshot.limits(gateway.Model(sizes=sizes, default_steps=20, max_steps=150)) == (
        "64x64; 20 steps, at most 150"
    )
    assert oneshot.limits(gateway.Model(context_tokens=1024)) == "1,024 tokens"
    assert oneshot.limits(gateway.Model(loras=["ink", "oil"], control=True)) == (
        "add-ons ink, oil; follows a control image"
    )


async def test_images_that_are_too_much_for_the_gateway_are_not_sent(
    upbeat: Upbeat, script: Script, console: Console, tmp_path: Path
) -> None:
    options = ImageOptions(init_image=types.ReferenceImage(data=bytes(1 << 22)))
    with pytest.raises(BadFile, match=r"--start and --control make 4,194,\d+ bytes, .* takes 4,194,304"):
        await oneshot.draw(upbeat, console, "a boat", tmp_path / "a.png", "", options)
    assert script.heard == [[]]


async def test_a_trace_is_written_and_told(upbeat: Upbeat, console: Console, tmp_path: Path) -> None:
    await oneshot.trace(upbeat, console, 0.5, tmp_path / "t.json", tmp_path / "t.svg")
    assert "1 stretches on the device" in printed(console)
    assert (tmp_path / "t.json").read_bytes().startswith(b'{"traceEvents"')
    assert "<svg" in (tmp_path / "t.svg").read_text()
