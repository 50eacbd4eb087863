"""What each row of a slice drafts: asks the jobs' drafters, and chooses lengths by goodput."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.contract import Batch, Budget
from pipelines.simultaneous.alignment import common_prefix
from pipelines.text.constraint import Constraint
from pipelines.text.packing import draws
from pipelines.text.planner import Planner, Row
from pipelines.text.speculation.cost import VerifyCost
from pipelines.text.speculation.drafter import Draft
from pipelines.text.speculation.drafters import MOST, Experiences, job_drafters
from pipelines.text.speculation.goodput import best_lengths
from pipelines.text.state import TextState

# Before anything is measured a drafted token is taken to cost so much of a slice without drafts.
_UNMEASURED = 0.02


class Drafting:
    """One model's speculation. Owner: the executor thread.

    names: the drafters in use; eos: tokens behind which nothing can be drafted; context, most: tokens of a
    job and of a slice.
    """

    def __init__(
        self, names: Sequence[str], vocab: int, eos: frozenset[int], context: int, most: int
    ) -> None:
        self._names = names
        self._vocab = vocab
        self._eos = eos
        self._context = context
        self._most = most
        self._experiences = Experiences()
        self._cost = VerifyCost()

    def add_drafts(self, rows: Sequence[Row], planner: Planner, budget: Budget) -> Sequence[Row]:
        """The rows with the drafts that they check."""
        if not self._names:
            return rows
        drafts = [self._offer(row) for row in rows]
        if not any(tokens for tokens, _ in drafts):
            return rows
        tokens = sum(row.count for row in rows)
        cost_ms = (
            self._cost.predict(len(rows)) if tokens == len(rows) else planner.chunk_cost(tokens)
        ) or _unmeasured
        lengths = best_lengths(
            [chances for _, chances in drafts], cost_ms, max(0, self._most - tokens), budget.slice_ms
        )
        return [
            Row(row.job, row.count, draft[:length], _given(row, draft[:length])) if length else row
            for row, (draft, _), length in zip(rows, drafts, lengths, strict=True)
        ]

    def observe(self, batch: Batch, ms: float) -> None:
        """A slice has taken so long."""
        if batch.kind != "prefill":
            self._cost.observe(len(batch.rows), sum(map(len, batch.work.drafts)), ms)

    def leave(self, state: TextState) -> None:
        """The job goes: its last words are learned from."""
        if state.drafters is not None:
            state.drafters.follow(state.tokens, state.prompt_length)

    def _offer(self, row: Row) -> tuple[tuple[int, ...], Sequence[float]]:
        state = row.job.state
        assert isinstance(state, TextState)
        if state.doubted or not draws(state, row.count):
            return (), ()
        if state.drafters is None:
            experience = self._experiences.of(state.keys[0])
            state.drafters = job_drafters(self._names, self._vocab, experience, state.given)
        offer = state.drafters.follow(state.tokens, state.prompt_length)
        if state.constraint is not None:
            offer = allowed(offer, state.constraint)
        most = state.sampling.max_tokens if state.final else min(state.ahead, state.sampling.max_tokens)
        end = max(0, min(most - state.drawn, self._context - len(state.tokens)) - 1)
        tokens = tuple(offer.tokens[:end])
        for place, token in enumerate(tokens):
            if token in self._eos:
                tokens = tokens[:place]
                break
        return tokens, offer.chances[: len(tokens)]


def allowed(offer: Draft, constraint: Constraint) -> Draft:
    """What has no alternative is certain; else the part of the offer that the constraint lets pass."""
    forced = constraint.forced()[:MOST]
    if forced:
        return Draft(offer.place, forced, [0] * len(forced), [1.0] * len(forced))
    count = constraint.valid(offer.tokens)
    return Draft(offer.place, offer.tokens[:count], offer.grades[:count], offer.chances[:count])


def _given(row: Row, draft: Sequence[int]) -> int:
    drafters = row.job.state.drafters
    return common_prefix(draft, drafters.given) if drafters is not None else 0


def _unmeasured(drafted: int) -> float:
    return 1 + _UNMEASURED * drafted
