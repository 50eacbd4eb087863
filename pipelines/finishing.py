"""What becomes of raw chunks off the executor thread and off the event loop: resampling, PCM, pictures.

One `Finisher` a job. It holds the job's resampler and sample counts, so the chunks of one job must come in
order and from one thread at a time; which thread is no matter.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.contract import Emitted, FloatArray, RawAudio, RawImage
from pipelines.errors import InvalidRequest
from pipelines.messages import (
    AudioChunk,
    Chunk,
    Done,
    ImageChunk,
    ImageRequest,
    Request,
    SpeechRequest,
)
from pipelines.resampling import StreamResampler

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
PNG_LEVEL_PREVIEW, PNG_LEVEL_FINAL = 1, 6
PCM16_SCALE = 32767.0


class Finisher:
    """Turns what the device emits for one job into what travels to its client."""

    def __init__(self, request: Request) -> None:
        self._picture = _PictureEncoder(request) if isinstance(request, ImageRequest) else None
        self._sound = _SoundEncoder(request.sample_rate) if isinstance(request, SpeechRequest) else None

    def finish(self, chunk: Emitted) -> list[Chunk]:
        """The chunks to send, in order; may be none while the resampler fills.

        A raw chunk that does not fit the request is a bug of the pipeline (AssertionError).
        """
        if isinstance(chunk, RawAudio):
            assert self._sound is not None
            return self._sound.encode(chunk)
        if isinstance(chunk, RawImage):
            assert self._picture is not None
            return [self._picture.encode(chunk)]
        if isinstance(chunk, Done) and self._sound is not None:
            return [*self._sound.flush(), chunk]
        return [chunk]


class _SoundEncoder:
    """Float samples to PCM16 at the rate asked for (Hz, 0 for the source's own)."""

    def __init__(self, wanted_rate: int) -> None:
        self._rate = wanted_rate
        self._resampler: StreamResampler | None = None
        self._sent = 0

    def encode(self, audio: RawAudio) -> list[Chunk]:
        if self._resampler is None:
            self._rate = self._rate or audio.sample_rate
            self._resampler = StreamResampler(audio.sample_rate, self._rate)
        return self._chunk(self._resampler.push(audio.samples))

    def flush(self) -> list[Chunk]:
        """The resampler's tail."""
        return self._chunk(self._resampler.finish()) if self._resampler is not None else []

    def _chunk(self, samples: FloatArray) -> list[Chunk]:
        if not len(samples):
            return []
        start_ms = self._sent * 1000 // self._rate
        self._sent += len(samples)
        return [AudioChunk(to_pcm16(samples).tobytes(), self._rate, start_ms)]


class _PictureEncoder:
    """Pixels to PNG, JPEG or WebP. Raises: InvalidRequest for another type or a quality outside 1..100."""

    def __init__(self, request: ImageRequest) -> None:
        if request.mime not in FORMATS:
            raise InvalidRequest("image.mime", f"one of {', '.join(FORMATS)}, not {request.mime!r}")
        if not 1 <= request.quality <= 100:
            raise InvalidRequest("image.quality", f"1 to 100, not {request.quality}")
        self._mime, self._quality = request.mime, request.quality

    def encode(self, raw: RawImage) -> ImageChunk:
        picture = Image.fromarray(raw.pixels)
        if picture.size != raw.size:
            picture = picture.resize(raw.size, Image.Resampling.BILINEAR)
        data = io.BytesIO()
        if self._mime == "image/png":
            picture.save(data, "PNG", compress_level=PNG_LEVEL_FINAL if raw.final else PNG_LEVEL_PREVIEW)
        elif self._mime == "image/jpeg":
            picture.save(data, "JPEG", quality=self._quality)
        else:
            picture.save(data, "WEBP", quality=self._quality, method=4 if raw.final else 0)
        width, height = raw.size
        return ImageChunk(data.getvalue(), self._mime, width, height, raw.step, raw.steps, raw.final)


def to_pcm16(samples: FloatArray) -> npt.NDArray[np.int16]:
    """Float [-1, 1] to 16 bits, little endian, rounded; what lies outside is clipped, never wrapped."""
    scaled = np.clip(np.rint(samples * PCM16_SCALE), -32768, 32767)
    pcm: npt.NDArray[np.int16] = scaled.astype("<i2")
    return pcm
