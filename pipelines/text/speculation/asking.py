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
from pipelines.text.speculation.patience import Stake
from pipelines.text.state import TextState

# In slices of more rows nobody is asked: with 16 it gained in no kind of text, and finding out costs too.
MOST_ROWS = 8
# A scope whose drafts did not promise to pay is tried again after so many slices, with so few tokens.
RETRY = 256
TRIED = 3
# Rows that are further behind are not tried.
_NEAR = 256


@dataclass(frozen=True, slots=True)
class Offer:
    """A row of the slice: tokens that it may still draft, chances of its best offer's tokens, how many of
    these would be checked, and what such a token is worth (`goodput.share`)."""

    job: Job
    room: int
    chances: Sequence[float]
    length: int
    share: float

    @property
    def expected(self) -> float:
        """Tokens that the slice says for the row on average, those beyond the plain one at their worth."""
        right: float = sum(accumulate(self.chances[: self.length], mul))
        return 1.0 + self.share * right


@dataclass(frozen=True, slots=True)
class _Asker:
    job: Job
    state: TextState
    drafter: ModelDrafter
    most: int
    behind: int
    expected: float


class Asking:
    """Owner: the executor thread."""

    def __init__(self, name: str, model: DraftModel) -> None:
        self.model = model
        self._name = name
        self._cost = DraftCost()

    def batch(
        self, offers: Sequence[Offer], cost_ms: Callable[[int], float], budget: Budget, number: int
    ) -> Batch | None:
        """The small model's slice, None where the large one does better without. cost_ms(n): the large one's
        slice with n drafted tokens; number: of the slice."""
        if len(offers) > MOST_ROWS:
            return None
        asked = [(offer, self._asker(offer, len(offers), number)) for offer in offers]
        askers = [asker for _, asker in asked if asker is not None]
        if not askers:
            return None
        others = [offer for offer, asker in asked if asker is None]
        expected, drafted = sum(offer.expected for offer in others), sum(offer.length for offer in others)
        plain = sum(offer.expected for offer in offers) / cost_ms(sum(offer.length for offer in offers))
        each = offers[0].share
        pass_ms = self._cost.pass_ms(len(askers), cost_ms(0))
        worth = worth_of_asking(
            Askers(
                len(askers),
                sum(asker.drafter.rates.overall() for asker in askers) / len(askers),
                sum(asker.behind for asker in askers),
                max(asker.most for asker in askers),
                each,
            ),
            Without(plain, expected, drafted),
            cost_ms,
            pass_ms,
            self._cost.token_ms(pass_ms),
            budget.slice_ms,
        )
        if worth is None:
            return self._trial(askers, pass_ms, budget, number)
        worth_ms = each * cost_ms(0) / len(offers)
        for asker in askers:
            # It has to win more than is promised without it.
            stake = Stake(len(offers), worth_ms, (asker.expected - 1.0) * worth_ms)
            asker.drafter.stake = stake
        return self._batch(askers, LONGEST, worth, pass_ms, budget)

    def observe(self, batch: Batch, ms: float) -> None:
        """A slice of the small model has taken so long."""
        work: DraftWork = batch.work
        self._cost.observe(len(batch.rows), self.model.passes(batch), work.behind, ms)
        for job in batch.rows:
            drafters = job.state.drafters
            if drafters is not None and drafters.model is not None and drafters.model.stake is not None:
                drafters.model.stake.cost_ms += ms / len(batch.rows)

    def _trial(self, askers: Sequence[_Asker], pass_ms: float, budget: Budget, number: int) -> Batch | None:
        """One row of a scope that has not been asked for long."""
        for asker in askers:
            scope = asker.drafter.scope
            if number - scope.tried >= RETRY and asker.behind <= _NEAR:
                scope.tried = number
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

    def _asker(self, offer: Offer, rows: int, number: int) -> _Asker | None:
        """None where the row has an offer as good as an endless draft, was asked at this very place, or has
        lost by asking."""
        state = offer.job.state
        assert isinstance(state, TextState)
        drafter = state.drafters.model if state.drafters is not None else None
        if drafter is None or drafter.fresh or not offer.room or state.doubted:
            return None
        if not drafter.scope.patience.asks(rows, number):
            return None
        if len(state.tokens) + LONGEST > self.model.config.context:
            return None
        if offer.expected * (1.0 - drafter.rates.overall()) >= 1.0:
            return None
        assert state.draft_row is not None
        behind = state.draft_row.behind(state.tokens) - 1
        return _Asker(offer.job, state, drafter, offer.room, behind, offer.expected)
