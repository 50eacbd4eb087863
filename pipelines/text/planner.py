"""Which tokens of which jobs make up a slice. Pure: reads states and cost estimates, changes nothing.

Rules
1. Every decoding job (one token to compute) among the candidates gets its token before any prompt gets more
   than `SMALLEST` tokens: decodes never stall behind a long prompt (Sarathi; Agrawal et al., 2024).
2. The prompts share what is left of the slice's budget, most urgent first.
3. The most urgent job always gets something. Prompts of a less urgent class fill a slice only as far as
   the allowed gap, since the next job of the slice's class waits for its end, and a slice that somebody
   waits for (REALTIME, INTERACTIVE) not at all.
4. A voice needs a clause, token by token, before its listener runs dry. So in a slice of REALTIME decodes of
   less urgent classes ride only as far as they make it `RIDE_SHARE` longer (all of them on a GPU, where one
   row more costs next to nothing), and beside one that is heard already prompts fill it only as far as the
   gap.
5. Drafted tokens come last, out of what is left of the budget (`speculation.drafting`).
6. Layers between two preemption points are as many as fit half the allowed gap by the cost model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines.contract import Batch, Budget, Job
from pipelines.cost import UNKNOWN, CostModel
from pipelines.messages import JobClass
from pipelines.text.config import ModelConfig
from pipelines.text.state import TextState

SMALLEST = 16
UNMEASURED = 32
GAP_SHARE = 0.5
RIDE_SHARE = 0.25

Candidates = list[tuple[Job, int]]
"""Jobs in urgency order, each with its tokens to compute."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a slice computes: so many known tokens for each row, and `drafts` behind them that are checked; a
    preemption point each `every` layers. given: of each draft, how many leading tokens the answer to an
    earlier form of the prompt has too."""

    counts: tuple[int, ...]
    drafts: tuple[tuple[int, ...], ...]
    every: int
    given: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A job's part of a slice: `count` of its known tokens and a draft behind them. given: so many leading
    tokens of the draft are those of an earlier answer."""

    job: Job
    count: int
    draft: tuple[int, ...] = ()
    given: int = 0

    @property
    def tokens(self) -> int:
        """All that is computed."""
        return self.count + len(self.draft)


class Planner:
    """Sizes slices of one model by its cost model."""

    def __init__(
        self, name: str, config: ModelConfig, cost: CostModel, max_rows: int, max_chunk: int
    ) -> None:
        self._name = name
        self._layers = config.layers
        self._cost = cost
        self._max_rows = max_rows
        self._max_chunk = max_chunk
        parameters = config.hidden * (config.heads * 2 + config.kv_heads * 2) * config.head_dim
        parameters += 3 * config.hidden * config.intermediate
        # Work of one query meeting one cached token, over that of one token in the linear layers.
        self._context_share = 2 * config.heads * config.head_dim / parameters

    def choose(self, ready: Iterable[Job], budget: Budget) -> list[Row]:
        """Rows in urgency order, without drafts."""
        candidates = [(job, _state(job).pending) for job in islice(ready, self._max_rows)]
        slice_ms = budget.slice_ms
        if candidates and candidates[0][0].rank == JobClass.REALTIME:
            candidates, slice_ms = self._for_voices(candidates, budget)
        decodes = sum(1 for _, pending in candidates if pending == 1)
        if decodes == len(candidates):
            return [Row(job, 1) for job, _ in candidates]
        room = max(self._tokens_within(slice_ms, budget) - decodes, SMALLEST)
        waited_for = candidates[0][0].rank <= JobClass.INTERACTIVE
        riding = 0 if waited_for else self._tokens_within(budget.gap_ms, budget) - decodes
        chosen: list[Row] = []
        for job, pending in candidates:
            rides = job.rank > candidates[0][0].rank
            count = 1 if pending == 1 else max(0, min(pending, room, riding if rides else room))
            if pending > 1:
                room, riding = room - count, riding - count
            if count:
                chosen.append(Row(job, count))
        return chosen

    def _for_voices(self, candidates: Candidates, budget: Budget) -> tuple[Candidates, float]:
        """Rule 4: who of them may be in the slice, and how long it may take (milliseconds)."""
        own = [(job, pending) for job, pending in candidates if job.rank == JobClass.REALTIME]
        heard = any(pending == 1 and _is_heard(job) for job, pending in own)
        slice_ms = min(budget.slice_ms, budget.gap_ms) if heard else budget.slice_ms
        units = sum(self._units(job, 1) for job, _ in own)
        without_ms = alone_ms = self._ms("decode", units)
        if any(pending > 1 for _, pending in own):
            tokens = sum(pending for _, pending in own)
            alone_ms = self._ms("prefill", min(tokens, self._tokens_within(slice_ms, budget)))
        chosen = list(own)
        for job in (job for job, pending in candidates[len(own) :] if pending == 1):
            units += self._units(job, 1)
            if self._ms("decode", units) - without_ms > RIDE_SHARE * alone_ms:
                break
            chosen.append((job, 1))
        return chosen, slice_ms

    def chunk_cost(self, tokens: int) -> Callable[[int], float] | None:
        """Milliseconds of a slice with a chunk of prompt in it, `tokens` in all, by how many drafted ones are
        added; None before one was measured."""
        now, twice = (self._cost.estimate(Batch(self._name, "prefill", (), n)) for n in (tokens, 2 * tokens))
        if now is UNKNOWN:
            return None
        each = max(0.0, twice.median_ms - now.median_ms) / tokens
        return lambda drafted: now.median_ms + each * drafted

    def prompt_ms(self, tokens: int, budget: Budget) -> float:
        """Milliseconds to compute so many tokens from the first on; 0 before any were."""
        chunk = min(tokens, self._tokens_within(budget.slice_ms, budget))
        one = self._cost.estimate(Batch(self._name, "prefill", (), chunk))
        if one is UNKNOWN:
            return 0.0
        return one.median_ms * tokens / chunk * (1 + self._context_share * tokens / 2)

    def batch(self, rows: Sequence[Row], budget: Budget) -> Batch:
        """The slice for rows that have their memory."""
        kind = "prefill" if max(row.count for row in rows) > 1 else "decode"
        if kind == "decode" and any(row.draft for row in rows):
            kind = "verify"
        shares = tuple(self._units(row.job, row.tokens) for row in rows)
        units = sum(shares)
        jobs = tuple(row.job for row in rows)
        every = self._every(Batch(self._name, kind, jobs, units), budget)
        counts, drafts = tuple(row.count for row in rows), tuple(row.draft for row in rows)
        work = Work(counts, drafts, every, tuple(row.given for row in rows))
        return Batch(self._name, kind, jobs, units, work, shares)

    def _units(self, job: Job, tokens: int) -> float:
        """The work of so many tokens more."""
        return tokens * (1 + self._context_share * _state(job).table.length)

    def _ms(self, kind: str, units: float) -> float:
        return self._cost.estimate(Batch(self._name, kind, (), units)).median_ms

    def _every(self, batch: Batch, budget: Budget) -> int:
        estimate = self._cost.estimate(batch)
        if estimate is UNKNOWN:
            return 1
        layer_ms = estimate.p90_ms / (self._layers + 1)
        return min(self._layers, max(1, int(GAP_SHARE * budget.gap_ms / max(layer_ms, 1e-6))))

    def _tokens_within(self, slice_ms: float, budget: Budget) -> int:
        """The largest multiple of SMALLEST that is predicted to take at most `slice_ms`, a layer at most
        its share of the gap; by bisection, since a plan should take microseconds."""
        fits, too_many = 1, self._max_chunk // SMALLEST + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            estimate = self._cost.estimate(Batch(self._name, "prefill", (), middle * SMALLEST))
            if estimate is UNKNOWN:
                return min(UNMEASURED, self._max_chunk)
            layer_ms = estimate.p90_ms / (self._layers + 1)
            if estimate.median_ms > slice_ms or layer_ms > GAP_SHARE * budget.gap_ms:
                too_many = middle
            else:
                fits = middle
        return min(fits * SMALLEST, self._max_chunk)


def _is_heard(job: Job) -> bool:
    """Whether somebody listens already to what is made of the job's text."""
    return (job.consumer or job).dry_s > -math.inf


def _state(job: Job) -> TextState:
    state = job.state
    assert isinstance(state, TextState)
    return state
