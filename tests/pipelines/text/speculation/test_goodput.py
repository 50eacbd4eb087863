"""Lengths by goodput: tables, the formula of SmartSpec, and the crossover as acceptance goes from 0 to 1."""

from __future__ import annotations

import math

import pytest

from pipelines.text.speculation.goodput import MARGIN, best_lengths, share


def lengths(chances: list[list[float]], each: float, room: int = 64, limit_ms: float = math.inf) -> list[int]:
    """With plain slices of 1 ms and drafted tokens of `each` ms."""
    return best_lengths(chances, lambda drafted: 1 + each * drafted, room, limit_ms)


@pytest.mark.parametrize(
    ("chances", "each", "expected"),
    [
        ([[0.9] * 4], 0.01, [4]),
        ([[0.9] * 4], 1.0, [0]),
        ([[0.0] * 4], 0.01, [0]),
        ([[1.0] * 8], 0.9, [8]),
        ([[]], 0.01, [0]),
        ([[0.9] * 4, [0.1] * 4], 0.2, [4, 0]),
        ([[0.9, 0.1, 0.9], [0.5]], 0.05, [1, 1]),
        ([[0.02]], 0.001, [0]),
    ],
    ids=[
        "cheap and likely",
        "dear",
        "never right",
        "always right pays at any cost below one",
        "nothing offered",
        "the likelier row alone",
        "not past an unlikely token",
        "not within the margin",
    ],
)
def test_tables(chances: list[list[float]], each: float, expected: list[int]) -> None:
    assert lengths(chances, each) == expected


def test_room_and_time_bound_it() -> None:
    assert lengths([[1.0] * 9], 0.1, room=3) == [3]
    assert lengths([[1.0] * 9], 0.1, limit_ms=1.55) == [5]


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.85])
@pytest.mark.parametrize("each", [0.03, 0.1, 0.3])
def test_one_row_gets_what_the_closed_form_says(acceptance: float, each: float) -> None:
    def goodput(k: int) -> float:
        return (1 - acceptance ** (k + 1)) / (1 - acceptance) / (1 + each * k)

    best = max(range(33), key=goodput)
    wanted = best if goodput(best) > goodput(0) * MARGIN else 0
    assert lengths([[acceptance] * 32], each) == [wanted]


@pytest.mark.parametrize("rows", [1, 4, 16])
@pytest.mark.parametrize("each", [0.02, 0.1, 0.4])
def test_the_crossover_follows_acceptance(rows: int, each: float) -> None:
    """Injected acceptance from 0 to 1: no drafts below what a token costs, then never fewer than before."""
    per_token = each / rows
    chosen = [sum(lengths([[a / 100] * 16] * rows, per_token)) for a in range(101)]
    assert chosen[0] == 0
    assert chosen == sorted(chosen)
    assert chosen[100] == min(64, 16 * rows)
    crossover = next(a for a in range(101) if chosen[a]) / 100
    # One more token pays where what it is worth exceeds its part of a plain slice's time for one token.
    assert per_token * rows <= crossover * share(rows)
    assert crossover * share(rows) <= per_token * rows * 1.05 + 0.06
