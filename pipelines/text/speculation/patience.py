"""Whether a tenant's scope is asked for drafts at all: only while what came of it has paid for the asking.

Chances are estimated, costs are measured with noise, and the best of many estimates is an optimistic one;
what a slice says is known afterwards. So each row that was asked stakes what that cost (host time, its share
of checking), and is settled when its next tokens are known. A scope that has lost by that is left alone for
some slices, twice as many each time; then it is tried again. Kept by powers of two of rows: asking costs the
same for each row, and gains less where rows are many.

Owner of everything here: the executor thread.
"""

from __future__ import annotations

from dataclasses import dataclass

# So many rows are settled before a scope is judged, and about so many count.
FEWEST = 32
MEMORY = 64
SHORTEST_REST = 32
LONGEST_REST = 512


@dataclass(slots=True)
class Stake:
    """What a row of a slice has put in, and what a token beyond the plain one is worth (ms)."""

    rows: int
    worth_ms: float
    cost_ms: float = 0.0

    def settle(self, patience: Patience, more: int, number: int) -> None:
        """So many tokens more have come of it."""
        patience.settle(self.rows, more * self.worth_ms - self.cost_ms, number)


@dataclass(slots=True)
class _Record:
    """gain_ms: mean of what a row has won or lost. until: number of the slice that ends the rest."""

    gain_ms: float = 0.0
    settled: int = 0
    until: int = 0
    rest: int = SHORTEST_REST


class Patience:
    """One scope's records, by powers of two of rows."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    def asks(self, rows: int, number: int) -> bool:
        """Whether slice `number`, of so many rows, asks."""
        record = self._records.get(rows.bit_length())
        return record is None or record.until <= number

    def settle(self, rows: int, gain_ms: float, number: int) -> None:
        """A row that was asked in a slice of so many has gained so much; `number`: of the slice now."""
        record = self._records.setdefault(rows.bit_length(), _Record())
        record.settled += 1
        record.gain_ms += (gain_ms - record.gain_ms) / min(record.settled, MEMORY)
        if record.settled < FEWEST or record.until > number:
            return
        if record.gain_ms < 0:
            record.until = number + record.rest
            record.rest = min(2 * record.rest, LONGEST_REST)
            record.gain_ms, record.settled = 0.0, 0
        elif record.settled >= MEMORY:
            record.rest = SHORTEST_REST
