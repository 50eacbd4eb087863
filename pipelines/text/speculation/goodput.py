"""How much to draft: as many tokens as make the most of the slice's time, which may be none.

Goodput (SmartSpec; Liu et al., 2024) is the expected number of tokens that a slice says, over its time. With
chance a for each token of one row and k drafts the expectation is 1 + a + a^2 + ... + a^k, which is
(1 - a^(k + 1)) / (1 - a); here chances differ by row and token. A token is worth the chance that it and all
in front of it are right, so the best set of n drafted tokens are the n worthiest, and only their number is to
be found.

A token that one row of many says early is not worth its share of a slice: rows end at different times, the
slices they leave behind go on for the others, and what is saved is what one row less costs. So where rows are
many, tokens beyond the plain ones count for less (`share`). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Speculation has to promise this much more than plain decoding: estimates err, and drafting takes host time.
MARGIN = 1.03
# What one row less of many saves, over a row's part of the slice. Measured on a CPU: 0.6 of 4 and of 16.
_LAST_ROW = 0.6


def share(rows: int) -> float:
    """What a token beyond the plain one is worth in a slice of so many rows, over a row's part of it."""
    return _LAST_ROW + (1 - _LAST_ROW) / rows


def best_lengths(
    chances: Sequence[Sequence[float]], cost_ms: Callable[[int], float], room: int, limit_ms: float
) -> list[int]:
    """How many tokens of each row's draft to verify.

    chances: by row, of each drafted token. cost_ms(n): the slice with n drafted tokens, non-decreasing.
    At most `room` tokens, in a slice of at most `limit_ms`.
    """
    lengths = [0] * len(chances)
    worths: list[tuple[float, int]] = []
    for row, each in enumerate(chances):
        alive = 1.0
        for chance in each:
            alive *= chance
            worths.append((-alive, row))
    if not worths:
        return lengths
    worths.sort()
    expected, value = float(len(chances)), share(len(chances))
    plain = best = expected / cost_ms(0)
    chosen = 0
    for number, (minus_worth, _) in enumerate(worths[:room], 1):
        expected -= minus_worth * value
        ms = cost_ms(number)
        if ms > limit_ms:
            break
        goodput = expected / ms
        if goodput > best and goodput > plain * MARGIN:
            best, chosen = goodput, number
    for _, row in worths[:chosen]:
        lengths[row] += 1
    return lengths
