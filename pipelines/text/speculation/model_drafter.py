"""What a small model has drafted for a job, as one more drafter.

The small model runs in slices of its own (`draft_model`), which leave tokens and its confidence in each with
the job. Confidence is the grade: how often tokens of a grade were right is measured, as for every drafter.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.simultaneous.alignment import common_prefix
from pipelines.text.kv_cache import BlockTable
from pipelines.text.speculation.drafter import Draft, Rates
from pipelines.text.speculation.patience import Patience, Stake

CONFIDENCES = (0.3, 0.5, 0.7, 0.85, 0.95)
GRADES = len(CONFIDENCES) + 1


def confidence_grade(probability: float) -> int:
    """Of a token that the small model gives this probability."""
    return bisect(CONFIDENCES, probability)


@dataclass(slots=True)
class DraftRow:
    """What the small model keeps for one job. Owner: the executor thread; it changes at a commit, and between
    slices by `keep` and `free`.

    ids: the tokens whose KV `table` holds; those that were drafted may prove wrong. drafted: what may follow
    the first `place` tokens of the job, with the grade of each.
    """

    table: BlockTable
    ids: list[int] = field(default_factory=list)
    place: int = 0
    drafted: tuple[int, ...] = ()
    grades: tuple[int, ...] = ()

    def behind(self, tokens: Sequence[int]) -> int:
        """How many of the job's tokens are to be computed; the last one always is, for its logits."""
        return len(tokens) - self._common(tokens)

    def keep(self, tokens: Sequence[int]) -> None:
        """Forget the KV of all that the job does not say, and of its last token."""
        length = self._common(tokens)
        if length < len(self.ids):
            del self.ids[length:]
            self.table.crop(length)

    def free(self) -> None:
        """Give the memory back; what was drafted may still be right."""
        self.ids.clear()
        self.table.free()

    def _common(self, tokens: Sequence[int]) -> int:
        length = min(len(self.ids), len(tokens) - 1)
        if self.ids[:length] == tokens[:length]:
            return length
        return common_prefix(self.ids[:length], tokens)


class ModelScope:
    """What one tenant's scope has taught about the small model. tried: the last slice in which it was
    asked though it did not promise to pay; patience: whether it has paid."""

    def __init__(self) -> None:
        self.rates = Rates(GRADES, first_guess=0.7)
        self.patience = Patience()
        self.tried = 0


class ModelDrafter:
    """Offers what stands in the job's row. stake: of the tokens that come next, if the small model was asked
    about these. Owner: the executor thread, through the job's state."""

    def __init__(self, row: DraftRow, scope: ModelScope) -> None:
        self.rates = Rates(GRADES, scope.rates)
        self.scope = scope
        self.stake: Stake | None = None
        self._row = row
        self._place = 0

    @property
    def fresh(self) -> bool:
        """Whether the small model was asked about the tokens so far."""
        return self._row.place == self._place

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        """Where the job stands."""
        self._place = len(tokens)

    def propose(self, most: int) -> Draft:
        """What was drafted for this very place."""
        if not self.fresh:
            return Draft(self._place)
        grades = self._row.grades[:most]
        chances = [self.rates.chance(grade) for grade in grades]
        return Draft(self._place, self._row.drafted[:most], grades, chances)
