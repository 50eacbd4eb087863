"""Finishing: raw chunks become PCM and pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.contract import Emitted, RawAudio, RawImage
from pipelines.errors import InvalidRequest
from pipelines.finishing import Finisher, to_pcm16
from pipelines.messages import (
    AudioChunk,
    Chunk,
    Done,
    FinishReason,
    ImageChunk,
    ImageRequest,
    SpeechRequest,
    TextRequest,
    TokenChunk,
    TranscribeRequest,
    TranscriptChunk,
)

DONE = Done(FinishReason.STOP)
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)


def finished(finisher: Finisher, chunks: list[Emitted]) -> list[Chunk]:
    return [out for chunk in chunks for out in finisher.finish(chunk)]


def pieces(size: int = 800) -> list[Emitted]:
    return [*(RawAudio(TONE[at : at + size], 16_000) for at in range(0, len(TONE), size)), DONE]


def samples(chunks: list[Chunk]) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.frombuffer(b"".join(c.pcm16 for c in chunks if isinstance(c, AudioChunk)), "<i2")


def test_audio_at_its_own_rate() -> None:
    chunks = finished(Finisher(SpeechRequest()), pieces())
    assert chunks[-1] == DONE
    assert [c.start_ms for c in chunks if isinstance(c, AudioChunk)] == list(range(0, 1000, 50))
    np.testing.assert_array_equal(samples(chunks), np.rint(TONE * 32767).astype(np.int16))


@pytest.mark.parametrize("rate", [8000, 24_000, 48_000])
def test_audio_at_another_rate(rate: int) -> None:
    chunks = finished(Finisher(SpeechRequest(sample_rate=rate)), pieces())
    audio = [c for c in chunks if isinstance(c, AudioChunk)]
    assert {c.sample_rate for c in audio} == {rate}
    assert abs(len(samples(chunks)) - rate) <= rate // 1000
    sent = np.cumsum([0] + [len(c.pcm16) // 2 for c in audio[:-1]])
    assert [c.start_ms for c in audio] == [int(n * 1000 // rate) for n in sent]
    assert chunks[-1] == DONE


def test_the_way_audio_is_cut_changes_nothing() -> None:
    request = SpeechRequest(sample_rate=22_050)
    one = samples(finished(Finisher(request), pieces(800)))
    other = samples(finished(Finisher(request), pieces(333)))
    np.testing.assert_array_equal(one, other)


def test_loud_samples_are_clipped_and_never_wrap() -> None:
    loud = np.array([2.0, -2.0, 1.0, -1.0, 1.00002, 0.0], np.float32)
    assert to_pcm16(loud).tolist() == [32767, -32768, 32767, -32767, 32767, 0]


def test_done_without_audio() -> None:
    assert finished(Finisher(SpeechRequest(sample_rate=8000)), [DONE]) == [DONE]


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/webp"])
def test_pictures_are_encoded_and_previews_enlarged(mime: str) -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :6] = (200, 30, 10)
    finisher = Finisher(ImageRequest("a", mime=mime, quality=95))
    (preview,) = finisher.finish(RawImage(pixels, (48, 32), 3, 20, final=False))
    assert isinstance(preview, ImageChunk)
    assert (preview.mime, preview.width, preview.height, preview.step, preview.steps) == (mime, 48, 32, 3, 20)
    assert not preview.final
    picture = Image.open(io.BytesIO(preview.data))
    assert picture.size == (48, 32)
    assert Image.MIME[picture.format or ""] == mime
    red, green, blue = np.asarray(picture.convert("RGB"))[16, 8]
    assert red > 150 > 60 > max(green, blue)


def test_png_is_lossless() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    (chunk,) = Finisher(ImageRequest("a")).finish(RawImage(pixels, (16, 16), 20, 20, final=True))
    assert isinstance(chunk, ImageChunk)
    assert chunk.final
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(chunk.data))), pixels)


def test_quality_is_heard_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    raw = RawImage(pixels, (64, 64), 1, 1, final=True)
    sizes = []
    for quality in (10, 95):
        (chunk,) = Finisher(ImageRequest("a", mime="image/jpeg", quality=quality)).finish(raw)
        assert isinstance(chunk, ImageChunk)
        sizes.append(len(chunk.data))
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize(
    ("request_", "field"),
    [(ImageRequest("a", mime="image/gif"), "image.mime"), (ImageRequest("a", quality=0), "image.quality")],
)
def test_bad_picture_options(request_: ImageRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Finisher(request_)
    assert raised.value.field == field


def test_the_rest_passes_through() -> None:
    token, transcript = TokenChunk("a", (1,)), TranscriptChunk("b", 1.0, True)
    assert finished(Finisher(TextRequest()), [token, DONE]) == [token, DONE]
    assert finished(Finisher(TranscribeRequest()), [transcript, DONE]) == [transcript, DONE]
