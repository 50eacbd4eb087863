"""A speaker without a model: a sine per symbol, deterministic, with many preemption points."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.speech.speaker import ChunkRow, Clause, ClauseState, Prosody, Symbols

SAMPLE_RATE = 16_000
CHUNK = 800
SYMBOL = 300


@dataclass(frozen=True, slots=True)
class FakeState:
    """`start_hz` is carried over the border, so that a lost prosody is heard."""

    ids: tuple[int, ...]
    rate: float
    pitch: float
    start_hz: float
    position: int = 0

    @property
    def total(self) -> int:
        return round(len(self.ids) * SYMBOL / self.rate)

    @property
    def remaining_samples(self) -> int:
        return self.total - self.position

    @property
    def prosody(self) -> Prosody:
        return Prosody(self.start_hz + self.ids[-1], 0.0, False)


class FakeSpeaker:
    """Phonemes are the letters' codes; blanks and marks are silent."""

    sample_rate = SAMPLE_RATE
    chunk_samples = CHUNK
    voices = ("anna", "bert")
    rows_at_once = 1

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.begun: list[Clause] = []
        self.decoded = 0

    def phonemize(self, text: str) -> Symbols:
        return Symbols(
            tuple(ord(c) % 96 for c in text if c.isalnum()), text.rstrip().endswith((".", "!", "?"))
        )

    def begin(self, clauses: Sequence[Clause]) -> Generator[None, None, list[ClauseState | None]]:
        self.begun += clauses
        states: list[ClauseState | None] = []
        for clause in clauses:
            yield
            start = clause.before.pitch_hz if clause.before else 100.0
            state = FakeState(clause.symbols.ids, clause.rate, clause.pitch, start)
            states.append(state if clause.symbols.ids else None)
        yield
        return states

    def chunk(self, states: Sequence[ClauseState]) -> Generator[None, None, list[ChunkRow]]:
        rows: list[ChunkRow] = []
        for state in states:
            yield
            assert isinstance(state, FakeState)
            end = min(state.position + CHUNK, state.total)
            at = np.arange(state.position, end)
            hz = state.start_hz + 5.0 * np.asarray(state.ids)[(at * len(state.ids)) // state.total]
            samples = (0.3 * np.sin(2 * np.pi * hz * state.pitch * at / SAMPLE_RATE)).astype(np.float32)
            if self.broken:
                samples[0] = np.nan
            after = FakeState(state.ids, state.rate, state.pitch, state.start_hz, end)
            rows.append((samples, after if end < state.total else None))
        yield
        return rows

    def decodes(self, states: Sequence[ClauseState]) -> int:
        return self.decoded
