"""The gate: speculative answers of the embedded model equal plain ones, greedy and drawn, in batches.

They may first differ only where the two best perturbed scores are closer than 1e-4 (the determinism contract:
other batch shapes change floating point).
"""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from kernels.sampling import gumbel
from pipelines.messages import Sampling
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.draft_model import KIND
from tests.text_driver import Driver
from training.text_generator import stream

MODEL = Path(__file__).parents[4] / "models" / "upbeat-text"
DRAFT = MODEL.with_name("upbeat-text-draft")
NEAR = 1e-4
ROWS = 16


def prompts(count: int) -> list[str]:
    """First questions of generated conversations, and some with a word changed."""
    rng = random.Random(0)
    found = []
    for conversation in islice(stream(None, 0), count):
        words = conversation.turns[0].user.split()
        if rng.random() < 0.2:
            words[rng.randrange(len(words))] = rng.choice(("blue", "seven", "never", "Anna"))
        found.append(" ".join(words))
    return found


def answers(driver: Driver, asked: list[str], temperature: float) -> list[tuple[list[int], int]]:
    """Every prompt's tokens, prompt included, and where its answer begins; ROWS at a time. Checking is made
    to look free, so that as much as can be is drafted."""
    driver.pipeline._drafting.clock = lambda: 0.0
    found = []
    for start in range(0, len(asked), ROWS):
        jobs = [
            driver.submit(text, Sampling(max_tokens=40, temperature=temperature, seed=start + place))
            for place, text in enumerate(asked[start : start + ROWS])
        ]
        while (batch := driver.plan()) is not None:
            driver.finish(batch)
            driver.pipeline.observe(batch, 0.05 if batch.kind == KIND else 1.0)
        found += [(list(job.state.tokens), job.state.prompt_length) for job in jobs]
        for job in jobs:
            driver.release(job)
    return found


def near_tie(tokens: list[int], place: int, seed: int, temperature: float) -> bool:
    """Whether the two best perturbed scores at `place` are close, by transformers' logits."""
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    with torch.inference_mode():
        scores = model(torch.tensor([tokens[:place]])).logits[0, -1]
    if temperature:
        scores = scores / temperature + gumbel([(seed, place)], scores.shape[-1])[0]
    best = scores.topk(2).values
    return float(best[0] - best[1]) < NEAR


def gate(count: int, temperature: float) -> int:
    """How many drafted tokens were right, over `count` prompts that all say the same."""
    asked = prompts(count)
    plain, speculative = (
        Driver(TextPipeline.load(MODEL, name="upbeat-text", settings=settings))
        for settings in (TextSettings(drafters=()), TextSettings(draft=str(DRAFT)))
    )
    wanted, found = answers(plain, asked, temperature), answers(speculative, asked, temperature)
    for number, ((one, begin), (other, _)) in enumerate(zip(wanted, found, strict=True)):
        if one != other:
            place = next(i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
            assert place >= begin
            assert near_tie(one, place, number, temperature), asked[number]
    done = [chunks[-1] for chunks in speculative.emitted.values()]
    return sum(chunk.usage.accepted_tokens for chunk in done)  # type: ignore[attr-defined]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_few_prompts(temperature: float) -> None:
    assert gate(24, temperature) > 40


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_two_thousand_prompts(temperature: float) -> None:
    assert gate(2_000, temperature) > 5_000
