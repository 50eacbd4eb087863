"""Whether it pays to ask the small model, and what asking costs. Pure but for what is learned online.

With chance a for each token, k tokens of a row promise a + a^2 + ... + a^k of them right (Leviathan et al.,
2023). Asking takes k passes of the small model and, once, the tokens that it has not seen yet, which later
slices of the same answers share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.text.speculation.cost import VerifyCost

LONGEST = 12
# Asking has to promise this much more than not asking: it is one more slice.
MARGIN = 1.1
# Over how many of a row's next tokens its catching up is spread, at most: answers end before their limit.
SPREAD = 32
# Before it is measured a pass of the small model is taken to cost so much of one of the large model, and a
# token that is caught up so much of a pass.
_PASS = 0.15
_TOKEN = 0.05
# Checking a drafted token takes at least so much of a slice without: sizes that were not tried look cheaper.
_CHECK = 0.03
_WEIGHT = 0.1
_MANY = 32


class DraftCost:
    """Milliseconds of the small model's passes by rows, and of tokens that it catches up. Owner: the executor
    thread."""

    def __init__(self) -> None:
        self._passes = VerifyCost()
        self._token_ms = 0.0

    def observe(self, rows: int, passes: int, caught_up: int, ms: float) -> None:
        """A slice of so many passes over so many rows, which first computed so many tokens more."""
        if caught_up < _MANY:
            self._passes.observe(rows, 0, max(0.0, ms - caught_up * self._token_ms) / passes)
            return
        each = max(0.0, ms - passes * self.pass_ms(rows, ms / (passes + 1))) / caught_up
        self._token_ms += (_WEIGHT if self._token_ms else 1.0) * (each - self._token_ms)

    def pass_ms(self, rows: int, plain_ms: float) -> float:
        """One pass over so many rows; plain_ms: what the large model takes for them."""
        known = self._passes.predict(rows)
        return known(0) if known is not None else _PASS * plain_ms

    def token_ms(self, pass_ms: float) -> float:
        """One token that is caught up."""
        return self._token_ms or _TOKEN * pass_ms


@dataclass(frozen=True, slots=True)
class Without:
    """What a slice promises if nobody asks: `goodput` in tokens a millisecond; and of that, the tokens
    expected of, and drafted by, those rows that would not ask anyway."""

    goodput: float
    expected: float
    drafted: int


@dataclass(frozen=True, slots=True)
class Askers:
    """Rows that would ask: how many, mean chance of a token, tokens to catch up in all, tokens that one may
    still say. share: what their tokens beyond the plain ones are worth (`goodput.share`)."""

    rows: int
    chance: float
    behind: int
    left: int
    share: float


def worth_of_asking(
    askers: Askers,
    without: Without,
    cost_ms: Callable[[int], float],
    pass_ms: float,
    token_ms: float,
    limit_ms: float,
) -> float | None:
    """None where the slice does better without; else how many right tokens, over all rows, a further pass has
    to promise. cost_ms(n): the large model's slice with n drafted tokens, of at most `limit_ms`."""
    best, worth = without.goodput * MARGIN, None
    said, alive = 1.0, 1.0
    nobody_ms = cost_ms(without.drafted)
    for length in range(1, LONGEST + 1):
        alive *= askers.chance
        if askers.rows * askers.share * alive < best * pass_ms:
            break  # nor would any longer one pay
        said += askers.share * alive
        checked = askers.rows * length
        check_ms = max(cost_ms(without.drafted + checked), nobody_ms * (1 + _CHECK * checked))
        if check_ms > limit_ms:
            break
        slices = max(1.0, min(askers.left, SPREAD) / said)
        ms = check_ms + length * pass_ms + askers.behind * token_ms / slices
        goodput = (without.expected + askers.rows * said) / ms
        if goodput > best:
            best, worth = goodput, goodput * (pass_ms + (check_ms - nobody_ms) / length)
    return worth
