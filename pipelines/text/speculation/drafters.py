"""A job's drafters, and what they learn from its tenant's other jobs.

What is learned over jobs belongs to one tenant's cache scope, as cached prefixes do: what one tenant was told
must neither speed up nor slow down another, or timing would tell.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

from pipelines.text.speculation.copying import CopyFromContext
from pipelines.text.speculation.drafter import COPY_GRADES, Draft, Drafter, Rates
from pipelines.text.speculation.given import GivenText
from pipelines.text.speculation.model_drafter import DraftRow, ModelDrafter, ModelScope
from pipelines.text.speculation.ngrams import NgramDrafter, NgramTable
from pipelines.text.speculation.patience import Patience, Stake

DRAFTERS = ("given", "copy", "ngrams")
SCOPES = 32
MOST = 32


class Experience:
    """What one tenant's scope has taught: acceptance by drafter, the table of what follows what, and whether
    asking pays: for answers that are expected to resemble a given one, and for others."""

    def __init__(self) -> None:
        self.given = Rates(COPY_GRADES, first_guess=0.9)
        self.copy = Rates(COPY_GRADES)
        self.ngrams = NgramTable()
        self.model = ModelScope()
        self.patience = Patience()
        self.expecting = Patience()


class Experiences:
    """By tenant and scope. Of the tenant with most scopes the least recently used is forgotten, so that who
    names many forgets his own. Owner: the executor thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, bytes], Experience] = OrderedDict()

    def of(self, tenant: str, root: bytes) -> Experience:
        """root: the key under which the tenant's scope caches its prefixes."""
        key = tenant, root
        experience = self._known.get(key)
        if experience is not None:
            self._known.move_to_end(key)
            return experience
        experience = self._known[key] = Experience()
        if len(self._known) > SCOPES:
            self._forget_one()
        return experience

    def _forget_one(self) -> None:
        scopes = Counter(tenant for tenant, _ in self._known)
        most = max(scopes.values())
        del self._known[next(key for key in self._known if scopes[key[0]] == most)]


class JobDrafters:
    """Asks one job's drafters and believes the one that promises most. stake: of the tokens that come next,
    if they were asked about these. Owner: the executor thread, through the job's state."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        model: ModelDrafter | None = None,
        copying: CopyFromContext | None = None,
        patience: Patience | None = None,
    ) -> None:
        """copying: the one of the drafters that a revision of the prompt need not begin anew."""
        self.model = model
        self.copying = copying
        self.patience = patience or Patience()
        self.stake: Stake | None = None
        self._drafters = drafters if model is None else (*drafters, model)
        self._offers: list[Draft] = []
        self._followed = -1
        self.offer = Draft(0)

    def settle(self, tokens: int, number: int) -> None:
        """The job says so many tokens now: those beyond one more than before were gained by what was staked.
        number: of the slice."""
        more = tokens - self._followed - 1
        if more < 0:
            return
        if self.stake is not None:
            self.stake.settle(self.patience, more, number)
            self.stake = None
        if self.model is not None and self.model.stake is not None:
            self.model.stake.settle(self.model.scope.patience, more, number)
            self.model.stake = None

    def put_in(self, rows: int, worth_ms: float, ms: float) -> None:
        """So much was spent on asking in a slice of so many rows, in which a token more is worth so much."""
        if self.stake is None:
            self.stake = Stake(rows, worth_ms)
        self.stake.cost_ms += ms

    def pay(self, ms: float) -> None:
        """Checking has cost so much."""
        for stake in (self.stake, self.model.stake if self.model is not None else None):
            if stake is not None:
                stake.cost_ms += ms

    @property
    def given(self) -> Sequence[int]:
        """What an earlier answer, where there is one, offered last."""
        offers = zip(self._drafters, self._offers, strict=False)
        return next((offer.tokens for drafter, offer in offers if isinstance(drafter, GivenText)), ())

    def follow(self, tokens: Sequence[int], prompt_length: int) -> Draft:
        """Judge the last offers by what was said since, and make new ones; the best is also `offer`."""
        if len(tokens) == self._followed:
            return self._asked() if self.model is not None else self.offer
        self._followed = len(tokens)
        self._judge(tokens)
        self._offers = []
        for drafter in self._drafters:
            drafter.follow(tokens, prompt_length)
            self._offers.append(drafter.propose(MOST))
        self.offer = max(self._offers, key=lambda draft: draft.expected, default=Draft(len(tokens)))
        return self.offer

    def leave(self, tokens: Sequence[int], prompt_length: int) -> None:
        """The job goes: what it said last teaches what outlives it."""
        self._judge(tokens)
        for drafter in self._drafters:
            if isinstance(drafter, NgramDrafter):
                drafter.follow(tokens, prompt_length)

    def _judge(self, tokens: Sequence[int]) -> None:
        for drafter, last in zip(self._drafters, self._offers, strict=False):
            drafter.rates.learn(last, tokens)

    def _asked(self) -> Draft:
        """The offer, after the small model may have been asked."""
        assert self.model is not None
        if self.model.fresh and not self._offers[-1].tokens:
            self._offers[-1] = self.model.propose(MOST)
            self.offer = max(self.offer, self._offers[-1], key=lambda draft: draft.expected)
        return self.offer


def job_drafters(
    names: Sequence[str],
    vocab: int,
    experience: Experience,
    given: Sequence[int],
    row: DraftRow | None = None,
    copying: CopyFromContext | None = None,
) -> JobDrafters:
    """Those of `names` that have something to go by; row: the small model's, where there is one; copying:
    what has followed an earlier form of the prompt."""
    made: list[Drafter] = []
    if "given" in names and given:
        made.append(GivenText(given, Rates(COPY_GRADES, experience.given)))
    if "copy" in names:
        copying = copying or CopyFromContext(vocab, Rates(COPY_GRADES, experience.copy))
        made.append(copying)
    if "ngrams" in names:
        made.append(NgramDrafter(experience.ngrams))
    model = ModelDrafter(row, experience.model) if row is not None else None
    expects = any(isinstance(drafter, GivenText) for drafter in made)
    return JobDrafters(made, model, copying, experience.expecting if expects else experience.patience)
