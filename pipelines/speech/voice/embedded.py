"""The embedded voice behind `Speaker`: symbols to acoustics, frames block by block, audio chunk by chunk.

Rules
1. `begin` runs the encoder, so durations, pitch and running phase of the whole clause are known; frames are
   not. It takes clauses one by one: over seconds, a running phase turns the rounding of another batch's shape
   into audible differences.
2. `chunk` decodes a block of frames when it is about to run out of them, with the decoder's full context on
   both sides, and synthesises `chunk_frames` of them. Both are pure functions of the clause, so that
   streamed audio equals whole audio and rows do not see each other. A call of the decoder costs almost as
   much for one row as for three, so that rows which run out next take the places that are free in it.
3. Work is done in small groups of rows with a `yield` between any two of them and between layers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipelines.limits import PITCH_LIMITS, RATE_LIMITS
from pipelines.speech.speaker import (
    ChunkRow,
    Clause,
    ClauseState,
    FloatArray,
    Prosody,
    Symbols,
)
from pipelines.speech.voice.acoustic import (
    ENERGY_MEAN,
    ENERGY_SCALE,
    PITCH_MEAN,
    PITCH_SCALE,
    AcousticModel,
    frame_features,
    pitch_curve,
    standard_pitch,
)
from pipelines.speech.voice.config import LETTERS_FILE, LEXICON_FILE, WEIGHTS_FILE, VoiceConfig, load_config
from pipelines.speech.voice.frontend import MARK_ORDER, PACK, Frontend, read_lexicon
from pipelines.speech.voice.letters import read_letters
from pipelines.speech.voice.vocoder import AFTER, BEFORE, SILENT, Vocoder, frame_phases, soft_limit

DECODE_ROWS, SPEAK_ROWS = 4, 4
ENCODE_SYMBOLS = 512
"""A longer clause is encoded in pieces: attention over all of it would hold the device too long at once."""
FADE_SAMPLES = 64
LONGEST_FRAMES = 100
"""Cap on one symbol's duration, frames."""
LEAST_PITCH_HZ, MOST_PITCH_HZ = 60.0, 500.0


@dataclass(frozen=True, slots=True)
class Acoustics:
    """What `begin` found out about a clause of T frames and L symbols.

    hidden [L, hidden]; symbol [T] int64; features [T, 6]; pitch [T + 1] Hz; phase [T + 1] float64 cycles.
    """

    hidden: Tensor
    symbol: Tensor
    features: Tensor
    pitch: Tensor
    phase: Tensor
    prosody: Prosody

    @property
    def frames(self) -> int:
        return len(self.symbol)


@dataclass(frozen=True, slots=True)
class VoiceState:
    """A clause about to speak frame `at`; `envelope` and `share` hold the decoded frames from `base` on."""

    acoustics: Acoustics
    at: int
    base: int
    envelope: Tensor
    share: Tensor
    hop: int

    @property
    def remaining_samples(self) -> int:
        return (self.acoustics.frames - self.at) * self.hop

    @property
    def prosody(self) -> Prosody:
        return self.acoustics.prosody

    @property
    def decoded(self) -> int:
        """The first frame that is not decoded yet."""
        return self.base + len(self.envelope)


class EmbeddedVoice:
    """A loaded voice folder. Constant after construction."""

    def __init__(self, config: VoiceConfig, model: AcousticModel, front: Frontend) -> None:
        self._config, self._front = config, front
        self._model = model.eval().requires_grad_(False)
        self._vocoder = Vocoder(config)

    @property
    def sample_rate(self) -> int:
        return self._config.sample_rate

    @property
    def chunk_samples(self) -> int:
        return self._config.chunk_samples

    @property
    def rows_at_once(self) -> int:
        return SPEAK_ROWS

    @property
    def voices(self) -> tuple[str, ...]:
        return self._config.voices

    def phonemize(self, text: str) -> Symbols:
        """See `Speaker.phonemize`."""
        return self._front.symbols(text)

    def begin(self, clauses: Sequence[Clause]) -> Generator[None, None, list[ClauseState | None]]:
        """See `Speaker.begin`."""
        for clause in clauses:
            self._check(clause)
        states: list[ClauseState | None] = []
        for clause in clauses:
            states.append((yield from self._encode(clause)) if clause.symbols.ids else None)
        return states

    def chunk(self, states: Sequence[ClauseState]) -> Generator[None, None, list[ChunkRow]]:
        """See `Speaker.chunk`."""
        rows = [self._own(state) for state in states]
        for group in _groups(self._due(rows), DECODE_ROWS):
            fed = yield from self._decode([rows[at] for at in group])
            for at, row in zip(group, fed, strict=True):
                rows[at] = row
        spoken: list[ChunkRow] = []
        for group in _groups(range(len(rows)), SPEAK_ROWS):
            spoken += yield from self._speak([rows[at] for at in group])
        return spoken

    def decodes(self, states: Sequence[ClauseState]) -> int:
        """See `Speaker.decodes`."""
        return len(self._due([self._own(state) for state in states]))

    def _due(self, rows: Sequence[VoiceState]) -> list[int]:
        """Whose next block `chunk` decodes: those who would run out, then in the places left in their groups
        those who have the least, but no more than a block."""
        left = [row.decoded - self._needed(row) for row in rows]
        hungry = sum(each < 0 for each in left)
        places = -(-hungry // DECODE_ROWS) * DECODE_ROWS
        some = [
            at
            for at, row in enumerate(rows)
            if row.decoded < row.acoustics.frames and left[at] < self._config.block_frames
        ]
        return sorted(some, key=left.__getitem__)[:places]

    def _check(self, clause: Clause) -> None:
        for name, value, (low, high) in (
            ("rate", clause.rate, RATE_LIMITS),
            ("pitch", clause.pitch, PITCH_LIMITS),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be between {low} and {high}")
        if clause.voice and clause.voice not in self.voices:
            raise ValueError(f"voice is {clause.voice!r}; this speaker has {', '.join(self.voices)}")

    @staticmethod
    def _own(state: ClauseState) -> VoiceState:
        if not isinstance(state, VoiceState):
            raise TypeError(f"not a state of this voice: {type(state).__name__}")
        return state

    def _needed(self, row: VoiceState) -> int:
        """One past the last frame that the next chunk reads."""
        return min(row.at + self._config.chunk_frames + AFTER, row.acoustics.frames)

    def _encode(self, clause: Clause) -> Generator[None, None, VoiceState]:
        ids = clause.symbols.ids
        before = torch.tensor([before_features(clause.before)])
        hidden, predicted = [], []
        for start in range(0, len(ids), ENCODE_SYMBOLS):
            piece = torch.tensor([ids[start : start + ENCODE_SYMBOLS]])
            x, mask = self._model.embed(piece, torch.tensor([piece.shape[1]]), before)
            for layer in self._model.encoder:
                x = layer(x, mask)
                yield
            hidden.append(x[0])
            predicted.append(self._model.heads(x)[0])
            yield
        state = self._state(clause, torch.cat(hidden), torch.cat(predicted))
        yield
        return state

    def _state(self, clause: Clause, hidden: Tensor, predicted: Tensor) -> VoiceState:
        durations = whole_durations(predicted[:, 0], clause.rate)
        symbol_pitch = predicted[:, 1:3]
        standard = pitch_curve(symbol_pitch, durations)
        symbol, features = frame_features(durations, standard)
        hertz = torch.exp(standard * PITCH_SCALE + PITCH_MEAN)
        pitch = (hertz * clause.pitch).clamp(LEAST_PITCH_HZ, MOST_PITCH_HZ)
        pitch = torch.cat([pitch, pitch[-1:]])
        phase = frame_phases(pitch, self._config.hop, self.sample_rate)
        spoken = torch.tensor([number // PACK >= len(MARK_ORDER) for number in clause.symbols.ids])
        energy = predicted[spoken, 3][-5:].mean() * ENERGY_SCALE + ENERGY_MEAN
        prosody = Prosody(float(hertz[-1]), float(energy), clause.symbols.ends_sentence)
        acoustics = Acoustics(hidden, symbol, features, pitch, phase, prosody)
        config = self._config
        envelope, share = torch.zeros(0, config.envelope_bands), torch.zeros(0, config.noise_bands)
        return VoiceState(acoustics, 0, 0, envelope, share, config.hop)

    def _decode(self, rows: Sequence[VoiceState]) -> Generator[None, None, list[VoiceState]]:
        """Appends the next block of frames to each row."""
        context = self._model.context
        block = min(self._config.block_frames, max(row.acoustics.frames - row.decoded for row in rows))
        span = block + 2 * context
        number = torch.tensor([row.decoded for row in rows])[:, None] - context + torch.arange(span)
        frames = torch.tensor([row.acoustics.frames for row in rows])[:, None]
        inside = ((number >= 0) & (number < frames)).float()[..., None]
        parts = []
        for row, wanted in zip(rows, number, strict=True):
            held = wanted.clamp(0, row.acoustics.frames - 1)
            parts.append((row.acoustics.hidden[row.acoustics.symbol[held]], row.acoustics.features[held]))
        x = self._model.frames_in(torch.stack([h for h, _ in parts]), torch.stack([f for _, f in parts]))
        yield
        for layer in self._model.decoder:
            x = layer(x, inside)
            yield
        envelope, share = self._model.frames_out(x[:, context : context + block])
        return [
            replace(
                row,
                envelope=torch.cat([row.envelope, envelope[at, : row.acoustics.frames - row.decoded]]),
                share=torch.cat([row.share, share[at, : row.acoustics.frames - row.decoded]]),
            )
            for at, row in enumerate(rows)
        ]

    def _speak(self, rows: Sequence[VoiceState]) -> Generator[None, None, list[ChunkRow]]:
        """Synthesises `chunk_frames` of each row and cuts what lies behind the clause's end."""
        count = min(self._config.chunk_frames, max(row.acoustics.frames - row.at for row in rows))
        first = torch.tensor([row.at for row in rows])
        number = first[:, None] - BEFORE + torch.arange(count + BEFORE + AFTER)
        read = [self._frames(row, wanted) for row, wanted in zip(rows, number, strict=True)]
        filters = self._vocoder.filters(torch.stack([e for e, _ in read]), torch.stack([s for _, s in read]))
        yield
        wave = self._vocoder.hiss(filters, first)
        yield
        held = [number[at, BEFORE:].clamp(max=row.acoustics.frames) for at, row in enumerate(rows)]
        pitch = torch.stack([row.acoustics.pitch[at] for row, at in zip(rows, held, strict=True)])
        phase = torch.stack([row.acoustics.phase[at[:-1]] for row, at in zip(rows, held, strict=True)])
        wave = soft_limit((wave + self._vocoder.tone(filters, pitch, phase)) * self._config.gain)
        yield
        return [self._row(row, wave[at]) for at, row in enumerate(rows)]

    @staticmethod
    def _frames(row: VoiceState, number: Tensor) -> tuple[Tensor, Tensor]:
        """The decoded frames of those numbers, silence outside the clause."""
        held = (number - row.base).clamp(0, len(row.envelope) - 1)
        outside = ((number < 0) | (number >= row.acoustics.frames))[:, None]
        return row.envelope[held].masked_fill(outside, SILENT), row.share[held].masked_fill(outside, 1.0)

    def _row(self, row: VoiceState, wave: Tensor) -> ChunkRow:
        count = min(self._config.chunk_frames, row.acoustics.frames - row.at)
        audio: FloatArray = wave[: count * self._config.hop].numpy().copy()
        at = row.at + count
        ramp = np.arange(FADE_SAMPLES, dtype=np.float32) / FADE_SAMPLES
        if row.at == 0:
            audio[:FADE_SAMPLES] *= ramp
        if at == row.acoustics.frames:
            audio[-FADE_SAMPLES:] *= ramp[::-1]
            return audio, None
        base = max(at - BEFORE, 0)
        drop = base - row.base
        return audio, replace(row, at=at, base=base, envelope=row.envelope[drop:], share=row.share[drop:])


def load_voice(
    folder: Path, chunk_frames: int | None = None, block_frames: int | None = None
) -> EmbeddedVoice:
    """Loads a voice folder, with other lengths of chunk and decoder block than its config's where given.

    Raises ValueError naming the file that is missing, unreadable or does not fit.
    """
    config = load_config(folder)
    config = msgspec.structs.replace(
        config,
        chunk_frames=chunk_frames or config.chunk_frames,
        block_frames=block_frames or config.block_frames,
    )
    front = Frontend(
        config.phonemes, read_lexicon(folder / LEXICON_FILE), read_letters(folder / LETTERS_FILE)
    )
    model = AcousticModel(config)
    _load_weights(model, folder / WEIGHTS_FILE)
    return EmbeddedVoice(config, model, front)


def before_features(before: Prosody | None) -> list[float]:
    """What the encoder is told of the clause before: whether there was one, its last pitch, whether it goes
    on.
    """
    if before is None or before.pitch_hz <= 0:
        return [0.0, 0.0, 0.0]
    return [1.0, standard_pitch(before.pitch_hz), float(not before.ended_sentence)]


def whole_durations(log_frames: Tensor, rate: float) -> Tensor:
    """[length] int64 frames, at least one each, rounded so that the total stays true."""
    exact = log_frames.double().exp().clamp(1.0, LONGEST_FRAMES) / rate
    ends = exact.cumsum(0).round().long()
    return torch.diff(ends, prepend=ends.new_zeros(1)).clamp(min=1)


def _groups(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _load_weights(model: AcousticModel, path: Path) -> None:
    """Raises ValueError naming the file where it is unreadable or does not fit."""
    try:
        model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path}: {error}") from error
