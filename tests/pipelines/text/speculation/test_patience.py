"""Who has lost by asking is left alone for a while, and who gains is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipelines.messages import Sampling
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.drafters import JobDrafters
from pipelines.text.speculation.patience import FEWEST, LONGEST_REST, SHORTEST_REST, Patience, Stake
from tests.text_driver import Driver

Drive = Callable[..., Driver]


def settled(patience: Patience, gains_ms: Iterator[float] | list[float], number: int = 0) -> Patience:
    for gain_ms in gains_ms:
        patience.settle(1, gain_ms, number)
    return patience


def test_asked_until_enough_is_known_and_while_it_gains() -> None:
    patience = settled(Patience(), [-1.0] * (FEWEST - 1))
    assert patience.asks(1, 0)
    settled(patience, [-1.0])
    assert not patience.asks(1, SHORTEST_REST - 1)
    assert patience.asks(1, SHORTEST_REST)
    assert patience.asks(4, 0), "rows are told apart"


def test_rare_large_gains_count() -> None:
    assert settled(Patience(), [9.0, *[-0.1] * 60]).asks(1, 0)


def test_it_rests_twice_as_long_each_time_and_forgets_that_when_it_gains() -> None:
    patience, number, rests = Patience(), 0, []
    for _ in range(7):
        settled(patience, [-1.0] * FEWEST, number)
        start = number
        while not patience.asks(1, number):
            number += 1
        rests.append(number - start)
    assert rests == [min(SHORTEST_REST << n, LONGEST_REST) for n in range(7)]
    settled(patience, [1.0] * 200, number)
    settled(patience, [-9.0] * FEWEST, number)
    assert not patience.asks(1, number + SHORTEST_REST - 1)
    assert patience.asks(1, number + SHORTEST_REST)


@pytest.mark.parametrize(("more", "gain_ms"), [(0, -0.5), (3, 5.5)])
def test_a_stake_is_settled_by_the_tokens_that_came_of_it(more: int, gain_ms: float) -> None:
    found: list[float] = []

    class Noted(Patience):
        def settle(self, rows: int, gain_ms: float, number: int) -> None:
            found.append(gain_ms)

    drafters = JobDrafters((), patience=Noted())
    drafters.follow([1, 2, 3], 2)
    drafters.put_in(1, 2.0, 0.2)
    drafters.pay(0.3)
    drafters.settle(3, 1)
    assert not found, "nothing was said yet"
    drafters.settle(3 + 1 + more, 2)
    assert found == pytest.approx([gain_ms])
    assert drafters.stake is None
    assert Stake(1, 2.0).cost_ms == 0.0


def test_where_asking_costs_more_than_it_gains_hardly_anybody_is_asked(drive: Drive) -> None:
    """Random weights, a host that takes a fifth of a slice for asking: the drafters are left alone."""
    driver = drive(TextSettings(), eos_token_id=9999, max_position_embeddings=512)
    drafting = driver.pipeline._drafting
    seconds = iter(range(1 << 30))
    drafting.clock = lambda: next(seconds) * 0.2e-3
    job = driver.submit("one two three", Sampling(max_tokens=400, temperature=1.0, seed=5))
    asked = slices = 0
    while (batch := driver.plan()) is not None:
        before = job.state.drafters.stake if job.state.drafters is not None else None
        asked += before is not None
        slices += 1
        driver.finish(batch)
        driver.pipeline.observe(batch, 1.0)
    assert slices > 350
    assert asked < 160, asked
