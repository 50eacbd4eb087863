"""Injected acceptance from 0 to 1: what is drafted follows what it is worth, and never costs much.

Slices are made to take what verifying takes on two cores: a tenth of a plain slice for each drafted token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from pipelines.messages import Sampling
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.drafter import Draft, Rates
from pipelines.text.speculation.drafters import JobDrafters
from tests.text_driver import Driver

Drive = Callable[..., Driver]
PROMPT = "one two three four five six seven eight nine ten; "
TOKENS = 150
PLAIN_MS, EACH_MS = 1.0, 0.1


class Oracle:
    """Knows the answer, and says each token of it right with a set chance."""

    def __init__(self, answer: Sequence[int], acceptance: float, rng: random.Random) -> None:
        self.rates = Rates(1, first_guess=0.5)
        self._answer = answer
        self._acceptance = acceptance
        self._rng = rng
        self._place = 0
        self._said = 0

    def follow(self, tokens: Sequence[int], prompt_length: int) -> None:
        self._place, self._said = len(tokens), len(tokens) - prompt_length

    def propose(self, most: int) -> Draft:
        right = self._answer[self._said : self._said + most]
        tokens = [token if self._rng.random() < self._acceptance else (token + 1) % 300 for token in right]
        return Draft(self._place, tokens, [0] * len(tokens), [self.rates.chance(0)] * len(tokens))


def answered(drive: Drive, rows: int, acceptance: float | None, answer: Sequence[int]) -> tuple[float, float]:
    """Milliseconds that the answers took, and drafted tokens a slice over the last half of it."""
    driver = drive(TextSettings(drafters=("copy",)), eos_token_id=9999, max_position_embeddings=512)
    driver.pipeline._drafting.clock = lambda: 0.0  # the slices' time is made up; the host's would be real
    how = Sampling(max_tokens=TOKENS)
    jobs = [driver.submit(PROMPT, how) for _ in range(rows)]
    spent, lengths = 0.0, list[int]()
    while (batch := driver.plan()) is not None:
        driver.finish(batch)
        drafted = sum(map(len, batch.work.drafts))
        ms = PLAIN_MS + EACH_MS * drafted
        driver.pipeline.observe(batch, ms)
        for number, job in enumerate(jobs):
            if job.state.drawn == 1:
                made = [Oracle(answer, acceptance, random.Random(number))] if acceptance is not None else []
                job.state.drafters = JobDrafters(made)
        if all(job.state.drawn for job in jobs):
            spent += ms
            lengths.append(drafted)
    assert all(driver.tokens(job) == answer for job in jobs)
    late = lengths[len(lengths) // 2 :]
    return spent, sum(late) / len(late)


@pytest.mark.parametrize("rows", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_drafted_follows_what_it_is_worth(drive: Drive, rows: int) -> None:
    driver = drive(TextSettings(drafters=()), eos_token_id=9999, max_position_embeddings=512)
    job = driver.submit(PROMPT, Sampling(max_tokens=TOKENS))
    driver.drain()
    answer = driver.tokens(job)
    assert len(answer) == TOKENS
    plain, _ = answered(drive, rows, None, answer)
    found = {a: answered(drive, rows, a, answer) for a in (0.0, 0.2, 0.5, 0.8, 0.95, 1.0)}
    gains = {acceptance: plain / spent for acceptance, (spent, _) in found.items()}
    lengths = [length for _, length in found.values()]
    assert min(gains.values()) >= 0.97, gains
    assert lengths[0] < 0.3, "nothing right: as good as nothing is drafted"
    assert lengths == sorted(lengths), lengths
    assert gains[0.8] > (1.3 if rows == 1 else 1.05), gains
    assert gains[1.0] > 2 > gains[0.5], gains
