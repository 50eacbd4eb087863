"""The measured cost of slices by drafted tokens."""

from __future__ import annotations

import math

import pytest

from pipelines.text.speculation.cost import FORGOTTEN, VerifyCost


def test_plain_decoding_is_measured_before_anything_is_drafted_again() -> None:
    cost = VerifyCost()
    assert cost.predict(1) is None
    cost.observe(1, 4, 2.0)
    forbidding = cost.predict(1)
    assert forbidding is not None
    assert forbidding(1) == math.inf > forbidding(0)


@pytest.mark.parametrize(
    ("drafted", "expected"), [(0, 1.0), (4, 2.0), (2, 1.5), (8, 3.0), (6, 2.5), (18, 3.3)]
)
def test_between_and_beyond_what_was_measured(drafted: int, expected: float) -> None:
    cost = VerifyCost()
    for tokens, ms in ((0, 1.0), (4, 2.0), (8, 3.0)):
        cost.observe(1, tokens, ms)
    predict = cost.predict(1)
    assert predict is not None
    assert predict(drafted) == pytest.approx(expected)


def test_what_is_untried_is_approached_in_steps() -> None:
    cost = VerifyCost()
    cost.observe(16, 0, 1.0)
    predict = cost.predict(16)
    assert predict is not None
    assert predict(8) < 1.2
    assert predict(9) == math.inf


def test_more_tokens_never_cost_less_and_outliers_do_not_count() -> None:
    cost = VerifyCost()
    for tokens, ms in ((0, 1.0), (4, 9.0), (8, 3.0)):
        cost.observe(2, tokens, ms)
    for ms in (1.0, 1.0, 90.0, *[1.0] * 40):
        cost.observe(2, 0, ms)
    predict = cost.predict(2)
    assert predict is not None
    ratios = [predict(n) / predict(0) for n in (4, 8)]
    assert ratios == pytest.approx([3.0, 3.0], rel=0.3)


def test_what_was_not_seen_for_long_is_tried_again() -> None:
    cost = VerifyCost()
    cost.observe(1, 0, 1.0)
    cost.observe(1, 4, 50.0)
    for _ in range(FORGOTTEN + 1):
        cost.observe(1, 0, 1.0)
    predict = cost.predict(1)
    assert predict is not None
    assert predict(4) < 1.1


def test_a_slower_device_changes_no_ratio() -> None:
    cost = VerifyCost()
    for tokens, ms in ((0, 1.0), (4, 2.0)) * 20:
        cost.observe(1, tokens, ms)
    for _ in range(60):
        cost.observe(1, 0, 3.0)
    predict = cost.predict(1)
    assert predict is not None
    assert predict(0) == pytest.approx(3.0, rel=0.05)
    assert predict(4) / predict(0) == pytest.approx(2.0, rel=0.15)


def test_rows_are_told_apart() -> None:
    cost = VerifyCost()
    cost.observe(1, 0, 1.0)
    assert cost.predict(4) is None


def test_a_token_that_was_not_tried_costs_what_a_row_costs() -> None:
    cost = VerifyCost()
    for rows, ms in ((1, 1.0), (4, 1.6), (16, 4.0)):
        cost.observe(rows, 0, ms)
    large, small = cost.predict(16), cost.predict(1)
    assert large is not None
    assert small is not None
    assert large(5) == pytest.approx(4.0 + 5 * 0.2)
    assert small(5) == pytest.approx(1.0 + 5 * 0.2)


def test_one_lucky_measurement_does_not_make_drafts_free() -> None:
    cost = VerifyCost()
    for rows, ms in ((1, 1.0), (16, 4.0)):
        cost.observe(rows, 0, ms)
    cost.observe(16, 8, 4.0)
    lucky = cost.predict(16)
    assert lucky is not None
    assert lucky(8) > 4.9
    for _ in range(20):
        cost.observe(16, 8, 4.0)
    known = cost.predict(16)
    assert known is not None
    assert known(8) < 4.3
