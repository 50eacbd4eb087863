"""Policies as tables, and over recorded partials."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InvalidRequest
from pipelines.simultaneous.policies import POLICIES, Advice, Partial, policy, segments_of

NEVER = math.inf
# What a recogniser said of one utterance, one correction included.
RECORDED = [
    "turn",
    "turn on the",
    "turn on the flights",
    "turn on the lights in",
    "turn on the lights in the kitchen",
    "turn on the lights in the kitchen please",
]


def kept(name: str, partials: list[str]) -> list[str]:
    """What the policy would answer at each partial; '' for nothing."""
    rule = policy(name, "f")
    found = []
    for before, text in zip(["", *partials], partials, strict=False):
        advice = rule(Partial(text, before))
        found.append(text[: advice.keep].rstrip() if advice.answer else "")
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wait_k", ["", "", "turn on the", "turn on the lights", "turn on the lights in the",
                    "turn on the lights in the kitchen"]),
        ("wait_k=1", ["", "turn on", "turn on the", "turn on the lights", "turn on the lights in the",
                      "turn on the lights in the kitchen"]),
        ("hold_n", ["", "", "turn", "turn on", "turn on the lights", "turn on the lights in"]),
        ("local_agreement", ["", "", "turn on", "turn on the", "turn on the lights",
                             "turn on the lights in the"]),
        ("chunk=4", ["", "", "", "turn on the lights", "turn on the lights", "turn on the lights"]),
        ("sentence", [""] * 6),
    ],
)  # fmt: skip
def test_recorded_partials(name: str, expected: list[str]) -> None:
    assert kept(name, RECORDED) == expected


@pytest.mark.parametrize(
    ("name", "partial", "advice"),
    [
        ("pause=300", Partial("Hello", quiet_ms=100), Advice(5, again_ms=200)),
        ("pause=300", Partial("Hello", quiet_ms=300), Advice(5, answer=True)),
        ("pause", Partial("  ", quiet_ms=900), Advice(2, answer=False)),
        ("completeness", Partial("How are you?"), Advice(12, answer=True)),
        ("completeness", Partial('She said "go."'), Advice(14, answer=True)),
        ("completeness=200", Partial("Call Tom"), Advice(8, again_ms=200)),
        ("completeness", Partial("Call Tom", quiet_ms=250), Advice(8, answer=True)),
        ("completeness", Partial("Call Tom and", quiet_ms=9999), Advice(12)),
        ("completeness", Partial("Call Tom,", quiet_ms=9999), Advice(9)),
        ("clause", Partial("When it rains, we s"), Advice(15, answer=True)),
        ("clause", Partial("When it r"), Advice(0)),
        ("sentence", Partial("It rains a lot. We st"), Advice(16, answer=True)),
        ("sentence", Partial("It rains a lot."), Advice(15, answer=True)),
        ("wait_k", Partial(""), Advice(0)),
    ],
)
def test_tables(name: str, partial: Partial, advice: Advice) -> None:
    assert policy(name, "f")(partial) == advice


@given(st.sampled_from(sorted(POLICIES)), st.text(max_size=40), st.text(max_size=40), st.floats(0, 1e5))
def test_advice_is_sound(name: str, text: str, before: str, quiet_ms: float) -> None:
    advice = policy(name, "f")(Partial(text, before, quiet_ms))
    assert 0 <= advice.keep <= len(text)
    assert advice.again_ms > 0
    assert not advice.answer or text[: advice.keep].strip()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("guess", "must be one of wait_k"),
        ("", "must be one of"),
        ("wait_k=0", "1 to 1000"),
        ("wait_k=x", "1 to 1000"),
        ("wait_k=" + "9" * 99, "1 to 1000"),
        ("wait_k=²", "1 to 1000"),
        ("pause=", "10 to 60000"),
        ("clause=3", "takes no number"),
    ],
)
def test_what_is_refused(spec: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        policy(spec, "start.partial_prompt_policy")
    assert refused.value.field == "start.partial_prompt_policy"


def test_segmenters_by_name() -> None:
    assert segments_of("chunk=1", "f")("one of seven ") == ["one of seven "]
    with pytest.raises(InvalidRequest, match="clause, sentence, chunk"):
        segments_of("wait_k", "f")


@pytest.mark.parametrize("number", ["0000000031", "000000003" + "9" * 5000, "٣"])
def test_a_number_is_short_and_plain(number: str) -> None:
    with pytest.raises(InvalidRequest, match="wait_k takes 1 to 1000"):
        policy(f"wait_k={number}", "policy")


@pytest.mark.parametrize("spec", POLICIES)
@pytest.mark.parametrize("unit", ["a", " ", ".", "\n", ".)", " -", ","])
def test_no_prompt_takes_more_than_linear_time(spec: str, unit: str) -> None:
    """The gateway's event loop calls policies: a quadratic one stands still for minutes here."""
    text = "x" + unit * (100_000 // len(unit))
    begun = time.process_time()
    policy(spec, "policy")(Partial(text, text))
    assert time.process_time() - begun < 1.0
