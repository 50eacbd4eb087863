"""A small model that guesses what the large one will say (Leviathan et al., 2023), in slices of its own.

Rules
1. It draws with the large model's own question: same processing, same noise of the same position. Where the
   two agree about the scores they say the same token, at every temperature.
2. It has its own paged KV. What that holds is compared with the job's tokens before each use, so a revised
   prompt, a wrong draft, an eviction and a resumed job all look alike: the KV behind the common beginning is
   forgotten and computed again.
3. A slice is planned completely: rows, chances, when to stop. What it drafts is kept with the job and offered
   like any other draft; nothing of it is said before the large model has checked it.
4. Without memory for a row nothing is drafted for it; the small model never presses anybody.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kernels import draw, peaks
from pipelines.contract import Batch, Job
from pipelines.errors import ModelBroken
from pipelines.text.config import ModelConfig, load_config
from pipelines.text.loader import load_weights
from pipelines.text.memory import KvMemory, slots_for
from pipelines.text.model import Decoder
from pipelines.text.packing import Part, pack_parts
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.drafter import HOPELESS
from pipelines.text.speculation.model_drafter import DraftRow, confidence_grade
from pipelines.text.state import TextState
from pipelines.text.tokenizer import ChatTokenizer

KIND = "draft"
# Tokens that are caught up between two preemption points, at most.
CHUNK = 128


@dataclass(frozen=True, slots=True)
class DraftWork:
    """At most `most` tokens for each row. chances: by row, that a token of a grade is right. A further pass
    is made while it promises `worth` right tokens. behind: tokens that are caught up first, in all."""

    most: tuple[int, ...]
    chances: tuple[tuple[float, ...], ...]
    worth: float
    every: int
    behind: int


class DraftModel:
    """A small decoder with the large one's tokenizer. Owner: the executor thread."""

    def __init__(self, config: ModelConfig, decoder: Decoder, tokens: int, eos: frozenset[int]) -> None:
        self.config = config
        self._eos = eos
        self._decoder = decoder
        cache = decoder.new_cache(slots_for(tokens))
        self._memory = KvMemory(cache, frozenset(config.windows), prefix_reuse=False)

    @classmethod
    def load(
        cls, folder: Path, large: ModelConfig, tokenizer: ChatTokenizer, tokens: int, settings: TextSettings
    ) -> DraftModel:
        """large, tokenizer: of the model that it drafts for; tokens: how many its KV pool holds.

        Raises: ModelBroken where the folder's tokenizer is another one; as `load_config` and `load_weights`.
        """
        config = load_config(folder)
        if config.vocab != large.vocab or not ChatTokenizer(folder, large.vocab).same_tokens(tokenizer):
            raise ModelBroken(f"{folder}: a draft model needs the tokenizer of the model that it drafts for")
        weights = load_weights(folder, config, getattr(torch, settings.dtype), torch.device(settings.device))
        return cls(config, Decoder(config, weights), tokens, large.eos)

    def row(self) -> DraftRow:
        """Of a new job."""
        return DraftRow(self._memory.table())

    def reserve(self, state: TextState, most: int) -> bool:
        """Room for what the row is behind and for `most` drafted tokens."""
        row = _row(state)
        row.keep(state.tokens)
        return self._memory.reserve(row.table, len(state.tokens) - row.table.length + most)

    def passes(self, batch: Batch) -> int:
        """How many a slice has made that has just been committed."""
        return max(1, *(len(_row(_state(job)).drafted) for job in batch.rows))

    def run(self, batch: Batch) -> Iterator[None]:
        """One slice; commits each row's KV and what was drafted for it."""
        work: DraftWork = batch.work
        for job, most in zip(batch.rows, work.most, strict=True):
            reserved = self.reserve(_state(job), most)
            assert reserved, "the plan has reserved this"
        guesses = [
            _Guess(_state(job), most, chances)
            for job, most, chances in zip(batch.rows, work.most, work.chances, strict=True)
        ]
        yield from self._catch_up(guesses)
        going, every = guesses, work.every
        while going:
            logits = yield from self._pass(going, every)
            yield None
            for guess, (token, share) in zip(going, _drawn(going, logits), strict=True):
                guess.take(token, share, self._eos)
            going = [guess for guess in going if guess.goes_on]
            if sum(guess.alive for guess in going) < work.worth:
                break
            yield None
        for job, guess in zip(batch.rows, guesses, strict=True):
            if not job.cancelled:
                guess.commit()

    def _catch_up(self, guesses: Sequence[_Guess]) -> Generator[None, None, None]:
        """All but the last tokens of each row, of which there are no more than CHUNK in all."""
        most = max(1, CHUNK // len(guesses))
        for guess in guesses:
            while guess.left > most:
                count = min(CHUNK, guess.left - 1)
                yield from self._forward([guess.part(count, wanted=0)], 1)
                yield None

    def _pass(self, guesses: Sequence[_Guess], every: int) -> Generator[None, None, Tensor]:
        """Logits behind the last known or drafted token of each row."""
        logits = yield from self._forward([guess.part(guess.left, wanted=1) for guess in guesses], every)
        assert logits is not None
        return logits

    def _forward(self, parts: Sequence[Part], every: int) -> Generator[None, None, Tensor | None]:
        packed = pack_parts(parts, self._memory)
        return (yield from self._decoder.forward(packed, self._memory.cache, every))


def _drawn(guesses: Sequence[_Guess], logits: Tensor) -> Iterable[tuple[int, float]]:
    """Each row's token, and the probability that the small model gives it; that is NaN or 0 where it computed
    nonsense."""
    if all(guess.plain for guess in guesses):
        shares, chosen = peaks(logits.softmax(-1))
        return zip(chosen.tolist(), shares.tolist(), strict=True)
    asked = [replace(guess.state.row_sampling(guess.tokens), logprobs=0) for guess in guesses]
    return [(one.id, math.exp(one.logprob) if one.finite else 0.0) for one in draw(logits, asked)]


class _Guess:
    """One row of a running slice: `length` tokens have KV, known ones first, then drafted ones."""

    def __init__(self, state: TextState, most: int, chances: tuple[float, ...]) -> None:
        self.state = state
        self.length = _row(state).table.length
        self.tokens: list[int] = []
        self.alive = 1.0
        # As `RowSampling.plain`, but for grammars, which the small model does not know.
        self.plain = state.row_sampling().plain
        self._grades: list[int] = []
        self._most = most
        self._chances = chances

    @property
    def left(self) -> int:
        """Tokens without KV."""
        return len(self.state.tokens) + len(self.tokens) - self.length

    @property
    def goes_on(self) -> bool:
        return self.alive > HOPELESS and len(self.tokens) < self._most

    def part(self, count: int, wanted: int) -> Part:
        """The next tokens to compute."""
        start, known = self.length, len(self.state.tokens)
        ids = self.state.tokens[start : start + count] if start < known else self.tokens[start - known :]
        self.length += count
        return Part(_row(self.state).table, start, ids, wanted)

    def take(self, token: int, share: float, eos: frozenset[int]) -> None:
        """One more drafted token; none at an end, and where there is no probability."""
        if not share > 0 or token in eos:
            self.alive = 0.0
            return
        grade = confidence_grade(share)
        self.tokens.append(token)
        self._grades.append(grade)
        self.alive *= self._chances[grade]

    def commit(self) -> None:
        """The KV becomes durable, the guess an offer."""
        row, known = _row(self.state), len(self.state.tokens)
        row.table.append(self.length - row.table.length)
        row.ids[:] = [*self.state.tokens, *self.tokens][: self.length]
        row.place, row.drafted, row.grades = known, tuple(self.tokens), tuple(self._grades)


def _row(state: TextState) -> DraftRow:
    assert state.draft_row is not None
    return state.draft_row


def _state(job: Job) -> TextState:
    state = job.state
    assert isinstance(state, TextState)
    return state
