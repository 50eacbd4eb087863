"""The draft model beside its target, greedy, on unseen prompts: acceptance, cost ratio, speed-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.text_conversation import Conversation
from training.text_figures import Figure, interval, ratio
from training.text_loop import Loop, drafted
from training.text_tokenizer import Encoder, load_tokenizer

DRAFTED = 4
LONGEST = 120
# Passes of each kind timed in turn, and how often.
PASSES, ROUNDS = 20, 15


def speed_up(acceptance: float, cost: float, check: float, count: int) -> float:
    """Tokens a pass over its cost, in target passes: `count` drafts of `cost` each and one check."""
    tokens = float(sum(acceptance**power for power in range(count + 1)))
    return tokens / (count * cost + check)


def measure(target_folder: Path, draft_folder: Path, asked: Sequence[Conversation]) -> list[Figure]:
    """All figures on `asked`; nothing where there is no draft model."""
    if not (draft_folder / "model.safetensors").exists():
        return []
    encoder = Encoder(load_tokenizer(target_folder))
    target, draft = Loop(target_folder), Loop(draft_folder)
    prompts = [encoder.prompt(each) for each in asked]
    plain_s, drafted_s, checked, accepted, same = [], [], [], [], []
    for prompt in prompts:
        started = time.perf_counter()
        plain = target.greedy(prompt, LONGEST)
        between = time.perf_counter()
        made = drafted(target, draft, prompt, LONGEST, DRAFTED)
        drafted_s.append(time.perf_counter() - between)
        plain_s.append(between - started)
        checked.append(float(made.checked))
        accepted.append(float(made.accepted))
        same.append(float(made.said[:LONGEST] == plain))
    acceptance = ratio("draft model: acceptance per token", accepted, checked)
    costs, checks = _costs(target, draft, prompts[0])
    cost, check = interval("draft model: cost ratio c", costs), interval(f"check of {DRAFTED} drafts", checks)
    expected = speed_up(acceptance.value, cost.value, check.value, DRAFTED)
    return [
        acceptance,
        cost,
        check,
        Figure(f"speed-up by formula, {DRAFTED} drafted", expected, expected, expected, len(prompts)),
        ratio(f"speed-up measured, {DRAFTED} drafted", plain_s, drafted_s),
        interval("drafted answers equal to plain ones", same),
    ]


def _costs(target: Loop, draft: Loop, prompt: Sequence[int]) -> tuple[list[float], list[float]]:
    """Costs of a draft pass and of a check in target passes, one pair a round."""
    for loop in (target, draft):
        loop.choices(prompt, 0)
    one, several = list(prompt[-1:]), [prompt[-1]] * (DRAFTED + 1)
    costs, checks = [], []
    for _ in range(ROUNDS):
        plain = _median_s(lambda: target.choices(one, len(prompt)))
        costs.append(_median_s(lambda: draft.choices(one, len(prompt))) / plain)
        checks.append(_median_s(lambda: target.choices(several, len(prompt))) / plain)
    return costs, checks


def _median_s(run: Callable[[], object]) -> float:
    spent = []
    for _ in range(PASSES):
        started = time.perf_counter()
        run()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)
