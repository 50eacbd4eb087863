"""What each row of a slice drafts: asks the jobs' drafters, and chooses lengths by goodput."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipelines.contract import Batch, Budget, Job
from pipelines.simultaneous.alignment import common_prefix
from pipelines.text.constraint import Constraint
from pipelines.text.packing import draws
from pipelines.text.planner import Planner, Row
from pipelines.text.speculation.asking import Asking, Offer
from pipelines.text.speculation.cost import VerifyCost
from pipelines.text.speculation.draft_model import KIND
from pipelines.text.speculation.drafter import Draft
from pipelines.text.speculation.drafters import MOST, Experiences, JobDrafters, job_drafters
from pipelines.text.speculation.goodput import best_lengths, share
from pipelines.text.speculation.patience import Patience
from pipelines.text.state import TextState

# Before anything is measured a drafted token is taken to cost so much of a slice without drafts.
_UNMEASURED = 0.02
_NOTHING: tuple[tuple[int, ...], Sequence[float]] = ((), ())


class Drafting:
    """One model's speculation. Owner: the executor thread. clock: seconds of this thread.

    names: the drafters in use; asking: for the small model, if there is one; eos: tokens behind which nothing
    can be drafted; context, most: tokens of a job and of a slice.
    """

    def __init__(
        self,
        names: Sequence[str],
        asking: Asking | None,
        vocab: int,
        eos: frozenset[int],
        context: int,
        most: int,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._names = names
        self._asking = asking
        self._vocab = vocab
        self._eos = eos
        self._context = context
        self._most = most
        self._experiences = Experiences()
        self._cost = VerifyCost()
        self.clock = clock
        self._slices = 0

    def add_drafts(self, rows: Sequence[Row], planner: Planner, budget: Budget) -> Sequence[Row] | Batch:
        """The rows with the drafts that they check; or, where that pays, a slice of the small model first."""
        if not self._names and self._asking is None:
            return rows
        begun = self.clock()
        self._slices += 1
        asked = [self._asks(row, len(rows)) for row in rows]
        if not any(asked):
            return rows
        drafts = [self._offer(row) if asks else _NOTHING for row, asks in zip(rows, asked, strict=True)]
        tokens = sum(row.count for row in rows)
        plain = tokens == len(rows)
        measured = self._cost.predict(len(rows)) if plain else planner.chunk_cost(tokens)
        lengths = best_lengths(
            [chances for _, chances in drafts],
            measured or _unmeasured,
            max(0, self._most - tokens),
            budget.slice_ms,
        )
        first = None
        if plain and measured is not None:
            value = share(len(rows))
            if self._asking is not None:
                offers = [
                    Offer(row.job, self._room(_state(row)) if asks else 0, chances, length, value)
                    for row, (_, chances), length, asks in zip(rows, drafts, lengths, asked, strict=True)
                ]
                first = self._asking.batch(offers, measured, budget, self._slices)
            host_ms = (self.clock() - begun) * 1000 / sum(asked)
            worth_ms = value * measured(0) / len(rows)
            for row, asks in zip(rows, asked, strict=True):
                if asks:
                    _drafters(row.job).put_in(len(rows), worth_ms, host_ms)
        if first is not None:
            return first
        return [
            Row(row.job, row.count, draft[:length], _given(row, draft[:length])) if length else row
            for row, (draft, _), length in zip(rows, drafts, lengths, strict=True)
        ]

    def observe(self, batch: Batch, ms: float) -> None:
        """A slice has taken so long."""
        if batch.kind == KIND:
            assert self._asking is not None
            self._asking.observe(batch, ms)
        elif batch.kind != "prefill":
            drafted = sum(map(len, batch.work.drafts))
            self._cost.observe(len(batch.rows), drafted, ms)
            if drafted:
                self._charge(batch, ms, drafted)

    def _charge(self, batch: Batch, ms: float, drafted: int) -> None:
        """Checking took so much longer than a slice without: each row pays for its own draft."""
        measured = self._cost.predict(len(batch.rows))
        if measured is None:
            return
        plain_ms = measured(0)
        each_ms = min(max(0.0, ms - plain_ms), 2 * plain_ms) / drafted
        for job, draft in zip(batch.rows, batch.work.drafts, strict=True):
            if draft and job.state.drafters is not None:
                _drafters(job).pay(each_ms * len(draft))

    def _asks(self, row: Row, rows: int) -> bool:
        """Whether the row's drafters are asked; what came of the last time is settled."""
        state = _state(row)
        drafters = state.drafters
        if drafters is not None and drafters.stake is None and not drafters.patience.asks(rows, self._slices):
            return False
        if state.doubted or not draws(state, row.count):
            return False
        if drafters is None:
            experience = self._experiences.of(row.job.tenant, state.keys[0])
            drafters = job_drafters(
                self._names, self._vocab, experience, state.given, state.draft_row, state.copying
            )
            state.copying = drafters.copying
            if state.constraint is not None:
                drafters.patience = Patience()  # of its own: what has no alternative is not known of others
            state.drafters = drafters
        if drafters.stake is not None:
            drafters.settle(len(state.tokens), self._slices)
        return drafters.patience.asks(rows, self._slices)

    def leave(self, state: TextState) -> None:
        """The job goes: its last words are learned from."""
        if state.drafters is not None:
            state.drafters.leave(state.tokens, state.prompt_length)
        if state.draft_row is not None:
            state.draft_row.free()

    def _offer(self, row: Row) -> tuple[tuple[int, ...], Sequence[float]]:
        state = _state(row)
        offer = _drafters(row.job).follow(state.tokens, state.prompt_length)
        if state.constraint is not None:
            offer = allowed(offer, state.constraint)
        tokens = tuple(offer.tokens[: self._room(state)])
        for place, token in enumerate(tokens):
            if token in self._eos:
                tokens = tokens[:place]
                break
        return tokens, offer.chances[: len(tokens)]

    def _room(self, state: TextState) -> int:
        """Tokens that may be drafted behind the pending one, and still leave one to say."""
        most = state.sampling.max_tokens if state.final else min(state.ahead, state.sampling.max_tokens)
        return max(0, min(most - state.drawn, self._context - len(state.tokens)) - 1)


def _state(row: Row) -> TextState:
    state = row.job.state
    assert isinstance(state, TextState)
    return state


def allowed(offer: Draft, constraint: Constraint) -> Draft:
    """What has no alternative is certain; else the part of the offer that the constraint lets pass."""
    forced = constraint.forced()[:MOST]
    if forced:
        return Draft(offer.place, forced, [0] * len(forced), [1.0] * len(forced))
    count = constraint.valid(offer.tokens)
    return Draft(offer.place, offer.tokens[:count], offer.grades[:count], offer.chances[:count])


def _drafters(job: Job) -> JobDrafters:
    drafters = job.state.drafters
    assert isinstance(drafters, JobDrafters)
    return drafters


def _given(row: Row, draft: Sequence[int]) -> int:
    return common_prefix(draft, _drafters(row.job).given)


def _unmeasured(drafted: int) -> float:
    return 1 + _UNMEASURED * drafted
