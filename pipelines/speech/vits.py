"""A Hugging Face VITS folder as a speaker: transformers' own modules, preemptible and streamed.

Rules
1. The model's forward runs as it is, with its decoder (a HiFi-GAN) taken out: it returns the latents. The
   decoder is run over windows of them, each with as many neighbours as can reach into it, so that the audio
   in pieces is that of the whole.
2. What VITS draws at random is keyed by the symbols: the same clause always sounds the same, whatever else
   runs, waits or was said before.
3. VITS has no pitch: it speaks slower by the factor and the sound is read faster (pipelines/speech/repitch).
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.utils import parametrize
from transformers import VitsModel

from pipelines.contract import FloatArray
from pipelines.errors import ModelBroken, Unsupported
from pipelines.interruptible import add_points, interruptible
from pipelines.limits import PITCH_LIMITS, RATE_LIMITS
from pipelines.randomness import keyed
from pipelines.speech.repitch import reach, read_at
from pipelines.speech.speaker import (
    ChunkRow,
    Clause,
    ClauseState,
    Prosody,
    Symbols,
)
from pipelines.speech.vits_text import VitsText
from pipelines.tiling import tile_convolutions

CHUNK_S = 0.05
WINDOW_FRAMES = (8, 16, 32)


@dataclass(frozen=True, slots=True, eq=False)
class VitsClause:
    """A clause whose latents are known.

    latents: (1, channels, frames). `source` holds decoded samples from position `origin` on; `frames` were
    decoded, in `windows` windows; `given` samples went out, of `total`.
    """

    latents: torch.Tensor
    voice: torch.Tensor | None
    pitch: float
    ends_sentence: bool
    total: int
    source: FloatArray
    origin: int = 0
    frames: int = 0
    windows: int = 0
    given: int = 0

    @property
    def remaining_samples(self) -> int:
        return self.total - self.given

    @property
    def prosody(self) -> Prosody:
        """VITS tells nothing of its melody."""
        return Prosody(0.0, 0.0, self.ends_sentence)


class VitsSpeaker:
    """See `pipelines.speech.speaker.Speaker` and the module's rules."""

    def __init__(self, model: Any, text: VitsText, device: torch.device) -> None:
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.config = model.config
        self.language = text.language
        self._text, self._device = text, device
        self._model, self._decoder = _prepared(model, device)
        self._hop = math.prod(self.config.upsample_rates)
        self._reach = receptive_frames(self.config)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> VitsSpeaker:
        """Raises: ModelBroken naming the file or tensor at fault, Unsupported naming what is not offered."""
        text = VitsText(folder)
        try:
            model, report = VitsModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelBroken(f"{folder / 'model.safetensors'}: {error}") from error
        for kind in ("missing_keys", "mismatched_keys"):
            if report[kind]:
                raise ModelBroken(
                    f"{folder / 'model.safetensors'}: {kind}: {sorted(map(str, report[kind]))[0]}"
                )
        config = model.config
        for stride, width in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            if (width - stride) % 2:
                raise Unsupported(f"{folder}: upsample_kernel_sizes: {width} - {stride} must be even")
        return cls(model, text, torch.device(device))

    @property
    def sample_rate(self) -> int:
        return int(self.config.sampling_rate)

    @property
    def chunk_samples(self) -> int:
        return round(CHUNK_S * self.sample_rate)

    @property
    def rows_at_once(self) -> int:
        return 1

    @property
    def voices(self) -> tuple[str, ...]:
        """The numbers of the folder's speakers."""
        return tuple(str(number) for number in range(self.config.num_speakers))

    def phonemize(self, text: str) -> Symbols:
        return self._text.symbols(text)

    def begin(self, clauses: Sequence[Clause]) -> Generator[None, None, list[ClauseState | None]]:
        """One clause after the other: VITS pads rows of unequal length at the cost of both."""
        states: list[ClauseState | None] = []
        for clause in clauses:
            _check(clause, self.voices)
            states.append((yield from self._latents(clause)) if clause.symbols.ids else None)
        return states

    def chunk(self, states: Sequence[ClauseState]) -> Generator[None, None, list[ChunkRow]]:
        rows: list[ChunkRow] = []
        for state in map(_own, states):
            rows.append((yield from self._next(state)))
        return rows

    def _latents(self, clause: Clause) -> Generator[None, None, VitsClause]:
        """Text encoder, durations and flow."""
        speaker = self.voices.index(clause.voice) if clause.voice else 0
        ids = torch.tensor([clause.symbols.ids], device=self._device)
        rate = self.config.speaking_rate * clause.rate / clause.pitch
        several = self.config.num_speakers > 1

        def call() -> torch.Tensor:
            answer = self._model(ids, speaker_id=speaker if several else None, speaking_rate=rate)
            latents: torch.Tensor = answer.spectrogram
            return latents

        seed = noise_key(clause.symbols.ids, speaker)
        latents = yield from keyed(seed, self._device, interruptible(call))
        voice = None
        if several:
            voice = self._model.embed_speaker(torch.tensor([speaker], device=self._device))[..., None]
        total = math.floor(latents.shape[-1] * self._hop / clause.pitch)
        empty = np.zeros(0, np.float32)
        return VitsClause(latents, voice, clause.pitch, clause.symbols.ends_sentence, total, empty)

    def decodes(self, states: Sequence[ClauseState]) -> int:
        return sum(self._hungry(state, self._needed(state)) for state in map(_own, states))

    def _needed(self, state: VitsClause) -> int:
        """One past the last decoded sample that the next chunk reads."""
        count = min(self.chunk_samples, state.remaining_samples)
        return math.ceil((state.given + count) * state.pitch) + self._margin(state)

    def _hungry(self, state: VitsClause, needed: int) -> bool:
        return state.frames < state.latents.shape[-1] and state.frames * self._hop < needed

    @staticmethod
    def _margin(state: VitsClause) -> int:
        return 0 if state.pitch == 1.0 else reach(state.pitch)

    def _next(self, state: VitsClause) -> Generator[None, None, ChunkRow]:
        """Decodes windows until the next chunk is there."""
        count = min(self.chunk_samples, state.remaining_samples)
        margin, needed = self._margin(state), self._needed(state)
        while self._hungry(state, needed):
            state = yield from self._decode(state)
        if state.pitch == 1.0:
            start = state.given - state.origin
            samples = state.source[start : start + count]
        else:
            samples = read_at(state.source, state.origin, state.given, count, state.pitch)
        given = state.given + count
        if given == state.total:
            return samples, None
        origin = max(state.origin, math.floor(given * state.pitch) - margin)
        source = state.source[origin - state.origin :]
        return samples, dataclasses.replace(state, source=source, origin=origin, given=given)

    def _decode(self, state: VitsClause) -> Generator[None, None, VitsClause]:
        """The next window: small at first, so that sound starts early, then larger, to waste less."""
        frames = WINDOW_FRAMES[min(state.windows, len(WINDOW_FRAMES) - 1)]
        start, end = state.frames, min(state.frames + frames, state.latents.shape[-1])
        first = max(0, start - self._reach)
        window = state.latents[..., first : end + self._reach]
        wave = yield from interruptible(lambda: self._decoder(window, state.voice)[0, 0])
        audio = wave[(start - first) * self._hop : (end - first) * self._hop].float().cpu().numpy()
        source = np.concatenate([state.source, audio])
        return dataclasses.replace(state, source=source, frames=end, windows=state.windows + 1)


class _Withheld(torch.nn.Module):
    """Stands where the decoder was: the model's forward then ends with its latents."""

    def forward(self, latents: torch.Tensor, _voice: torch.Tensor | None = None) -> torch.Tensor:
        return latents.new_zeros(latents.shape[0], 1, 1)


def _prepared(model: Any, device: torch.device) -> tuple[Any, Any]:
    """The model without its decoder, and the decoder, both for inference and with their points."""
    model.eval().requires_grad_(False).to(device)
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    del model.posterior_encoder
    if device.type == "cpu":
        tile_convolutions(model)
    add_points(module for module in model.modules() if not list(module.children()))
    decoder, model.decoder = model.decoder, _Withheld()
    return model, decoder


def noise_key(ids: tuple[int, ...], speaker: int) -> int:
    """Seed of a clause's noise."""
    return zlib.crc32(np.asarray([speaker, *ids], np.int64).tobytes())


def receptive_frames(config: Any) -> int:
    """Latent frames on each side that a sample of the decoder depends on."""
    frames, scale = 3.0, 1
    for stride, width in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        frames += (width / stride) / scale
        scale *= stride
        blocks = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        frames += (
            max((kernel - 1) // 2 * sum(d + 1 for d in dilations) for kernel, dilations in blocks) / scale
        )
    return math.ceil(frames + 3 / scale)


def _check(clause: Clause, voices: tuple[str, ...]) -> None:
    if not RATE_LIMITS[0] <= clause.rate <= RATE_LIMITS[1]:
        raise ValueError(f"rate {clause.rate} outside {RATE_LIMITS}")
    if not PITCH_LIMITS[0] <= clause.pitch <= PITCH_LIMITS[1]:
        raise ValueError(f"pitch {clause.pitch} outside {PITCH_LIMITS}")
    if clause.voice and clause.voice not in voices:
        raise ValueError(f"no voice {clause.voice!r} among {voices}")


def _own(state: ClauseState) -> VitsClause:
    assert isinstance(state, VitsClause)
    return state
