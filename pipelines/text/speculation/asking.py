"""Which rows of a decoding slice ask the small model first, and how much it shall say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from pipelines.contract import Batch, Budget, Job
from pipelines.text.planner import GAP_SHARE
from pipelines.text.speculation.draft_gain import LONGEST, Askers, DraftCost, Without, worth_of_asking
from pipelines.text.speculation.draft_model import KIND, DraftModel, DraftWork
from pipelines.text.speculation.model_drafter import GRADES, ModelDrafter
from pipelines.text.state import TextState

# In slices of more rows nobody is asked: with 16 it gained in no kind of text, and finding out costs too.
MOST_ROWS = 8
# A scope whose drafts did not pay for so many slices is tried again, with so few tokens.
RETRY = 256
TRIED = 3
# Rows that are further behind are not tried.
_NEAR = 256


@dataclass(frozen=True, slots=True)
class Offer:
    """A row of the slice: tokens that it may still draft, chances of its best offer's tokens, and how many of
    these would be checked."""

    job: Job
    room: int
    chances: Sequence[float]
    length: int

    @property
    def expected(self) -> float:
        """Tokens that the slice says for the row, on average."""
        said = 1.0
        for chance in accumulate(self.chances[: self.length], mul):
            said += chance
        return said


@dataclass(frozen=True, slots=True)
class _Asker:
    job: Job
    state: TextState
    drafter: ModelDrafter
    most: int
    behind: int


class Asking:
    """Owner: the executor thread."""

    def __init__(self, name: str, model: DraftModel) -> None:
        self.model = model
        self._name = name
        self._cost = DraftCost()

    def batch(self, offers: Sequence[Offer], cost_ms: Callable[[int], float], budget: Budget) -> Batch | None:
        """The small model's slice, None where the large one does better without. cost_ms(n): the large one's
        slice with n drafted tokens."""
        if len(offers) > MOST_ROWS:
            return None
        asked = [(offer, self._asker(offer)) for offer in offers]
        askers = [asker for _, asker in asked if asker is not None]
        if not askers:
            return None
        others = [offer for offer, asker in asked if asker is None]
        expected, drafted = sum(offer.expected for offer in others), sum(offer.length for offer in others)
        plain = sum(offer.expected for offer in offers) / cost_ms(sum(offer.length for offer in offers))
        pass_ms = self._cost.pass_ms(len(askers), cost_ms(0))
        worth = worth_of_asking(
            Askers(
                len(askers),
                sum(asker.drafter.rates.overall() for asker in askers) / len(askers),
                sum(asker.behind for asker in askers),
                max(asker.most for asker in askers),
            ),
            Without(plain, expected, drafted),
            cost_ms,
            pass_ms,
            self._cost.token_ms(pass_ms),
            budget.slice_ms,
        )
        if worth is None:
            return self._trial(askers, pass_ms, budget)
        return self._batch(askers, LONGEST, worth, pass_ms, budget)

    def observe(self, batch: Batch, ms: float) -> None:
        """A slice of the small model has taken so long."""
        work: DraftWork = batch.work
        self._cost.observe(len(batch.rows), self.model.passes(batch), work.behind, ms)

    def _trial(self, askers: Sequence[_Asker], pass_ms: float, budget: Budget) -> Batch | None:
        """One row of a scope that has not been asked for long."""
        for asker in askers:
            scope = asker.drafter.scope
            scope.missed += 1
            if scope.missed >= RETRY and asker.behind <= _NEAR:
                scope.missed = 0
                return self._batch([asker], TRIED, 0.0, pass_ms, budget)
        return None

    def _batch(
        self, askers: Sequence[_Asker], longest: int, worth: float, pass_ms: float, budget: Budget
    ) -> Batch | None:
        """None without memory."""
        most = [min(longest, asker.most) for asker in askers]
        rows = [pair for pair in zip(askers, most, strict=True) if self.model.reserve(pair[0].state, pair[1])]
        if not rows:
            return None
        layers = self.model.config.layers
        every = int(GAP_SHARE * budget.gap_ms / max(pass_ms / (layers + 1), 1e-6))
        behind = sum(asker.behind for asker, _ in rows)
        rates = [asker.drafter.rates for asker, _ in rows]
        work = DraftWork(
            tuple(count for _, count in rows),
            tuple(tuple(map(each.chance, range(GRADES))) for each in rates),
            worth,
            min(layers, max(1, every)),
            behind,
        )
        jobs = tuple(asker.job for asker, _ in rows)
        return Batch(self._name, KIND, jobs, float(behind + len(rows)), work)

    def _asker(self, offer: Offer) -> _Asker | None:
        """None where the row has an offer as good as an endless draft, or was asked at this very place."""
        state = offer.job.state
        assert isinstance(state, TextState)
        drafter = state.drafters.model if state.drafters is not None else None
        if drafter is None or drafter.fresh or not offer.room or state.doubted:
            return None
        if len(state.tokens) + LONGEST > self.model.config.context:
            return None
        if offer.expected * (1.0 - drafter.rates.overall()) >= 1.0:
            return None
        assert state.draft_row is not None
        return _Asker(offer.job, state, drafter, offer.room, state.draft_row.behind(state.tokens) - 1)
