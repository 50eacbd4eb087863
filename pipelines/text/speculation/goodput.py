"""How much to draft: as many tokens as make the most of the slice's time, which may be none.

Goodput (SmartSpec; Liu et al., 2024) is the expected number of tokens that a slice says, over its time. With
chance a for each token of one row and k drafts the expectation is 1 + a + a^2 + ... + a^k, which is
(1 - a^(k + 1)) / (1 - a); here chances differ by row and token. A token is worth the chance that it and all
in front of it are right, so the best set of n drafted tokens are the n worthiest, and only their number is to
be found. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Speculation has to promise this much more than plain decoding: estimates err, and drafting takes host time.
MARGIN = 1.03


def best_lengths(
    chances: Sequence[Sequence[float]], cost_ms: Callable[[int], float], room: int, limit_ms: float
) -> list[int]:
    """How many tokens of each row's draft to verify.

    chances: by row, of each drafted token. cost_ms(n): the slice with n drafted tokens, non-decreasing.
    At most `room` tokens, in a slice of at most `limit_ms`.
    """
    worths: list[tuple[float, int]] = []
    for row, each in enumerate(chances):
        alive = 1.0
        for chance in each:
            alive *= chance
            worths.append((alive, row))
    worths.sort(key=lambda worth: -worth[0])
    expected = float(len(chances))
    plain = best = expected / cost_ms(0)
    chosen = 0
    for number, (worth, _) in enumerate(worths[:room], 1):
        expected += worth
        ms = cost_ms(number)
        if ms > limit_ms:
            break
        goodput = expected / ms
        if goodput > best and goodput > plain * MARGIN:
            best, chosen = goodput, number
    lengths = [0] * len(chances)
    for _, row in worths[:chosen]:
        lengths[row] += 1
    return lengths
