"""The partial-prompt benchmark's own rules."""

from __future__ import annotations

import math

import pytest

from benchmarks.partial_arms import differing, ratios, summary
from benchmarks.partial_cases import Case, bin_of, long_prompt
from benchmarks.partial_crowd import answered, judged, scored
from benchmarks.partial_sections import put_right
from benchmarks.virtual import SkippingClock, Turn
from pipelines.messages import Usage


def turn(text: str = "a", first_ms: float = 10.0, **usage: int) -> Turn:
    return Turn(text=text, first_token_ms=first_ms, last_token_ms=2 * first_ms, usage=Usage(**usage))


def test_an_answer_that_differs_is_found() -> None:
    assert not differing({"cold": [turn()], "answer ahead": [turn()], "think ahead": [turn("b")]})
    found = differing({"cold": [turn()], "answer ahead": [turn("b")]})
    assert found == ["answer ahead, prompt 0: 'b', the full prompt 'a'"]


def test_growth_of_the_median_with_its_interval() -> None:
    row = judged(3, [[10.0, 20.0, 30.0]] * 4, [[12.0, 22.0, 33.0]] * 4)
    assert row["growth"] == pytest.approx(0.1)
    low, high = row["interval"]
    assert low < 0.1 + 1e-9 < high


def test_points_lost_by_thinking_with_their_bound() -> None:
    cases = [Case("?", 1, expected="7")] * 4
    row = scored(cases, {"full prompt": ["7"] * 3, "answer ahead": ["7", "8", "7"], "think ahead": ["6"] * 3})
    assert row["problems"] == 3
    assert row["answers ahead that differ from the full prompt's"] == 1
    assert row["points lost by thinking ahead"] == row["one-sided 95 % bound"] == 100.0


def test_a_word_is_put_right_with_the_commit() -> None:
    text = "Anna has three apples and buys seventeen more. How many has she?"
    script = put_right(text)
    assert script.text == text
    assert "sevente" in script.edits[-1].text and script.edits[-2].text == "?"


def test_medians_shares_and_ratios() -> None:
    ours = [turn(first_ms=5.0, completion_tokens=10, accepted_tokens=5), turn(completion_tokens=10)]
    assert summary(ours)["accepted_share"] == 0.25
    assert "image_ms" not in summary(ours)
    assert ratios([turn(first_ms=20.0)], [turn()])["first_token_ms"]["ratio"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("said", "right"), [("3 plus 4 is 7. The answer is 7.", True), ("7 or 8", False), ("", False)]
)
def test_the_last_number_counts(said: str, right: bool) -> None:
    assert answered(said, "7") is right


def test_groups_of_length() -> None:
    assert [bin_of(n) for n in (1, 3, 7, 20, 21)] == ["1-2", "3-3", "6-10", "11-20", "over 20"]
    assert long_prompt(20, 0).text.count(".") == 19


def test_the_clock_skips_what_nobody_works_in() -> None:
    clock, called = SkippingClock(), list[float]()
    before_s = clock.now()
    clock.call_later(60.0, lambda: called.append(clock.now()))
    dropped = clock.call_later(30.0, lambda: called.append(-1.0))
    dropped.cancel()
    while clock.skip_to_next(math.inf):
        clock.run_due()
    assert len(called) == 1
    assert 60.0 <= called[0] - before_s < 70.0
