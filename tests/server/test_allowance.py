"""How many tokens may be generated ahead of commits."""

from __future__ import annotations

from server.allowance import BURST_S, SESSION_CHARS_PER_S, Allowances

RATE = 100.0
FULL = int(RATE * BURST_S)


def test_it_holds_a_burst_and_refills() -> None:
    allowance = Allowances(RATE, 10_000.0, 8).session("t")
    assert allowance.grant(10_000, 0, 50.0) == FULL
    allowance.charge(FULL + 50, 50.0)
    assert allowance.grant(10, 0, 50.0) == 0
    assert allowance.grant(10_000, 0, 51.0) == 50
    assert allowance.grant(30, 0, 51.0) == 30


def test_it_shrinks_to_nothing_under_load() -> None:
    allowance = Allowances(RATE, 10_000.0, 4).session("t")
    assert [allowance.grant(100, jobs, 0.0) for jobs in range(6)] == [100, 75, 50, 25, 0, 0]
    assert Allowances(RATE, 10_000.0, 0).session("t").grant(9, 0, 0.0) == 0


def test_a_tenants_sessions_share() -> None:
    allowances = Allowances(RATE, RATE, 8)
    one, two, other = allowances.session("a"), allowances.session("a"), allowances.session("b")
    one.charge(FULL, 1.0)
    assert two.grant(50, 0, 1.0) == 0
    assert other.grant(50, 0, 1.0) == 50


def test_changed_characters_delay_the_next_revision() -> None:
    allowances = Allowances()
    allowance, other = allowances.session("a"), allowances.session("a")
    allowance.charge_prompt(int(BURST_S * SESSION_CHARS_PER_S), 9.0)
    assert allowance.wait_s(9.0) == 0
    allowance.charge_prompt(int(2 * SESSION_CHARS_PER_S), 9.0)
    assert allowance.wait_s(9.0) == 2
    assert allowance.wait_s(10.5) == 0.5
    assert other.wait_s(9.0) == 0


def test_a_tenants_sessions_share_what_may_be_computed() -> None:
    allowances = Allowances()
    for _ in range(17):
        allowances.session("a").charge_prompt(int(BURST_S * SESSION_CHARS_PER_S), 9.0)
    assert allowances.session("a").wait_s(9.0) == 0.25
    assert allowances.session("b").wait_s(9.0) == 0
