"""What the speech pipeline needs from a voice: the embedded one and a VITS folder both stand behind it.

Rules
1. `phonemize` is pure and thread-safe and is called off the device thread; it is the only method that is.
2. `begin` and `chunk` are called on the device thread under `torch.inference_mode`. They are plain
   generators: every `yield` is a preemption point, two of them at most 25 ms of CPU time apart, and the
   answer is their return value (`answer = yield from speaker.begin(...)`).
3. States are immutable values. `chunk` never changes its input, and a speaker keeps no state of a stream on
   itself, so a slice that is closed half-way leaves nothing behind and can be run again from the same states.
4. A row of a batch equals the same row run alone within 1e-4.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Symbols:
    """What a clause is spoken from: the speaker's own symbol ids, empty where nothing is to be said."""

    ids: tuple[int, ...]
    ends_sentence: bool


@dataclass(frozen=True, slots=True)
class Prosody:
    """How a clause ended, carried across the border so that the next one goes on from there.

    `pitch_hz` is the last voiced pitch at pitch factor 1 (0.0 where nothing was voiced), `energy` the mean
    log-energy of the last spoken frames (natural log, the speaker's own reference), `ended_sentence` whether
    the melody starts afresh.
    """

    pitch_hz: float
    energy: float
    ended_sentence: bool


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause to be spoken.

    `rate` 2.0 is twice as fast, `pitch` 2.0 an octave up; an empty `voice` is the speaker's first.
    """

    symbols: Symbols
    rate: float = 1.0
    pitch: float = 1.0
    voice: str = ""
    before: Prosody | None = None


class ClauseState(Protocol):
    """A clause whose acoustics are known and whose audio is partly made: immutable, otherwise opaque."""

    @property
    def remaining_samples(self) -> int:
        """Samples that `chunk` has still to give for this clause, more than zero."""
        ...

    @property
    def prosody(self) -> Prosody:
        """How the clause will have ended: known once `begin` returns, for the next clause's `before`."""
        ...


ChunkRow: TypeAlias = tuple[FloatArray, ClauseState | None]


class Speaker(Protocol):
    """A loaded voice. See the module's rules."""

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    @property
    def chunk_samples(self) -> int:
        """Samples of one streamed chunk, 40 to 60 ms; a clause's last chunk may be shorter."""
        ...

    @property
    def rows_at_once(self) -> int:
        """How many rows `chunk` takes in one call of the model, in which a further row costs a part of the
        first; 1 where each has a call of its own."""
        ...

    @property
    def voices(self) -> tuple[str, ...]:
        """Names that `Clause.voice` may take, at least one."""
        ...

    def phonemize(self, text: str) -> Symbols:
        """Normalises numbers, times, money and abbreviations, then looks words up; any text is accepted."""
        ...

    def begin(self, clauses: Sequence[Clause]) -> Generator[None, None, list[ClauseState | None]]:
        """Runs the acoustic model over a batch; a clause with nothing to say gives None.

        Raises ValueError for a rate or pitch outside `RATE_LIMITS`, `PITCH_LIMITS`, or an unknown voice.
        """
        ...

    def chunk(self, states: Sequence[ClauseState]) -> Generator[None, None, list[ChunkRow]]:
        """The next chunk of each row, float32 mono in [-1, 1], and its new state: None once finished."""
        ...

    def decodes(self, states: Sequence[ClauseState]) -> int:
        """For how many of the rows `chunk` will run the decoder, which costs more than the chunk itself."""
        ...
