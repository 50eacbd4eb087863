"""Drafts from what was answered before: for each short context the token that tends to follow it.

An online table in the spirit of ADED (Liu et al., 2025) and SuffixDecoding (Oliaro et al., 2024): contexts of
ORDERS tokens, the longest known one decides. Each holds one token with a weight that rises when it is seen
again and halves when another is, which then takes its place at zero: it adapts, and a context costs two
integers.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.text.speculation.drafter import HOPELESS, Draft, Rates

ORDERS = (6, 4, 2)
GRADES = 4 * len(ORDERS)
HEAVIEST = 15
CONTEXTS = 1 << 16

_KEYS = (1 << 61) - 1


class NgramTable:
    """Owner: the executor thread. Memory: two generations of at most CONTEXTS contexts."""

    def __init__(self) -> None:
        self.rates = Rates(GRADES)
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def best(self, context: Sequence[int]) -> tuple[int, int] | None:
        """The likely next token after the last tokens of `context`, and its grade."""
        said = tuple(context[-ORDERS[0] :])
        for number, order in enumerate(ORDERS):
            if len(said) >= order:
                key = _key(said[-order:])
                known = self._young.get(key) or self._old.get(key)
                if known:
                    weight = known & HEAVIEST
                    return known >> 4, 4 * number + (weight > 1) + (weight > 3) + (weight > 7)
        return None

    def saw(self, context: Sequence[int], token: int) -> None:
        """`token` followed."""
        if len(self._young) >= CONTEXTS:
            self._old, self._young = self._young, {}
        said = tuple(context[-ORDERS[0] :])
        for order in ORDERS:
            if len(said) >= order:
                key = _key(said[-order:])
                known = self._young.get(key) or self._old.get(key) or token << 4
                weight = known & HEAVIEST
                if known >> 4 == token:
                    self._young[key] = token << 4 | min(HEAVIEST, weight + 1)
                else:
                    self._young[key] = (known ^ weight) | weight >> 1 if weight > 1 else token << 4 | 1


class NgramDrafter:
    """One job's view of its table; teaches it the job's answer. What was guessed and came true is not looked
    up again: `_ahead` are the tokens (and grades) still guessed behind the last one. Owner: the executor
    thread."""

    def __init__(self, table: NgramTable) -> None:
        self.rates = Rates(GRADES, table.rates)
        self._table = table
        self._followed = 0
        self._tail: list[int] = []
        self._ahead: list[tuple[int, int]] = []

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        """Learn the new tokens of the answer."""
        longest, ahead = ORDERS[0], self._ahead
        for end in range(max(prompt_length, self._followed), len(tokens)):
            self._table.saw(tokens[max(0, end - longest) : end], tokens[end])
            if ahead and ahead.pop(0)[0] != tokens[end]:
                ahead.clear()
        self._followed = len(tokens)
        self._tail = list(tokens[-longest:])

    def propose(self, most: int) -> Draft:
        """The likeliest token, then the likeliest after that, while it is worth hoping."""
        known, ahead = self._ahead, list[tuple[int, int]]()
        context, chances, alive = self._tail[:], [], 1.0
        for place in range(most):
            found = known[place] if place < len(known) else self._table.best(context)
            if found is None:
                break
            chance = self.rates.chance(found[1])
            alive *= chance
            if alive < HOPELESS:
                break
            context.append(found[0])
            ahead.append(found)
            chances.append(chance)
        self._ahead = ahead
        return Draft(self._followed, context[len(self._tail) :], [grade for _, grade in ahead], chances)


def _key(context: tuple[int, ...]) -> int:
    return hash(context) & _KEYS
