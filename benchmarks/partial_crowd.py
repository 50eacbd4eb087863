"""Many sessions at once for `benchmarks.partial_prompt`: a hostile one among them, and accuracy."""

from __future__ import annotations

import json
import math
import time

import numpy as np

from benchmarks.partial_arms import AHEAD, COLD, Arms, Keep, Row
from benchmarks.partial_cases import Case, problems
from benchmarks.stats import RESAMPLES, percentile
from benchmarks.virtual import Typists
from clients.edits import Edit, EditScript, typed
from pipelines.contract import Pipeline

TOGETHER = 64
MODES = {"full prompt": COLD, "answer ahead": AHEAD["answer ahead"], "think ahead": AHEAD["think ahead"]}


def hostile_section(pipelines: dict[str, Pipeline], sessions: int, rounds: int, keep: Keep) -> None:
    """So many sessions type at once, without and with one that rewrites its prompt each millisecond, while
    they type and commit: it grows to two fifths of the context, which it keeps, then to the most a prompt may
    have, and then is silent. In processor time of the one thread, the arms in turn. `keep` is given what is
    known after each pair of rounds."""
    arms = Arms(pipelines)
    cases = problems(sessions)
    info = next(pipeline.info for pipeline in pipelines.values() if pipeline.info.modality == "text")
    flood = flooding(int(0.4 * info.context_tokens))
    found: dict[str, list[list[float]]] = {"alone": [], "beside a hostile one": []}
    for number in range(2 * rounds):
        name = tuple(found)[(number + number // 2) % 2]
        typists = Typists(pipelines, running=time.thread_time)
        wanted = [
            (arms.plan(AHEAD["answer ahead"], case, f"{number} {n}"), typed(case.text, 600), 0.05 * n)
            for n, case in enumerate(cases)
        ]
        if name != "alone":
            wanted.append((arms.plan(AHEAD["answer ahead"], cases[0], f"{number} hostile"), flood, 2.0))
        turns = typists.turns(wanted)[:sessions]
        found[name].append([turn.first_token_ms for turn in turns])
        if number % 2:
            keep("hostile", judged(sessions, *found.values()))


def flooding(words: int) -> EditScript:
    """A revision each millisecond for 14 s, up to `words` words; then the longest prompt; then silence."""
    growing = (Edit(float(ms), 0, f"{ms} " + "word " * min(1 + ms // 4, words)) for ms in range(14_000))
    return EditScript((*growing, Edit(14_001.0, 0, "word " * 30_000), Edit(30_000.0, 0, "Hi.")))


def judged(sessions: int, alone: list[list[float]], beside: list[list[float]]) -> Row:
    """Growth of the p50 over rounds of sessions, its 95 % bootstrap interval over rounds and sessions."""
    before, after = np.asarray(alone), np.asarray(beside)
    rng = np.random.default_rng(0)
    grown = []
    for _ in range(RESAMPLES):
        rounds = rng.integers(0, len(before), len(before))[:, None]
        people = rng.integers(0, sessions, sessions)
        grown.append(np.median(after[rounds, people]) / np.median(before[rounds, people]) - 1)
    times = {
        name: {
            f"p{round(100 * share)}": percentile(list(values.ravel()), share) for share in (0.5, 0.9, 0.99)
        }
        for name, values in (("alone", before), ("beside a hostile one", after))
    }
    growth = times["beside a hostile one"]["p50"] / times["alone"]["p50"] - 1
    low, high = np.quantile(grown, (0.025, 0.975))
    print(f"\n{sessions} sessions at once, first token p50 {times['alone']['p50']:.1f} ms alone, "
          f"{times['beside a hostile one']['p50']:.1f} beside a hostile one "
          f"({growth:+.0%} [{low:+.0%}, {high:+.0%}])")  # fmt: skip
    return {
        "sessions": sessions,
        "rounds": len(before),
        "first_token_ms": times,
        "growth": growth,
        "interval": [float(low), float(high)],
    }


def accuracy_section(pipelines: dict[str, Pipeline], count: int, keep: Keep) -> None:
    """Word problems, many sessions at once: right answers with the full prompt and in both modes. `keep` is
    given what is known after each group of them."""
    arms, cases, row = Arms(pipelines), problems(count), Row()
    said: dict[str, list[str]] = {name: [] for name in MODES}
    for start in range(0, count, TOGETHER):
        group = cases[start : start + TOGETHER]
        for name, ahead in MODES.items():
            wanted = [
                (arms.plan(ahead, case, name), typed(case.text, 240), 0.1 * n) for n, case in enumerate(group)
            ]
            said[name] += [turn.text for turn in arms.typists.turns(wanted)]
        row = scored(cases, said)
        keep("accuracy", row)
    print("\naccuracy:", json.dumps(row, indent=1))


def scored(cases: list[Case], said: dict[str, list[str]]) -> Row:
    """Shares of right answers, and what thinking ahead loses with its one-sided 95 % bound."""
    right = {
        name: [answered(text, case.expected) for text, case in zip(texts, cases, strict=False)]
        for name, texts in said.items()
    }
    count = len(said["full prompt"])
    differ = [
        {"prompt": case.text, "full prompt": full, "answer ahead": ahead}
        for case, full, ahead in zip(cases, said["full prompt"], said["answer ahead"], strict=False)
        if full != ahead
    ]
    losses = [float(a) - float(b) for a, b in zip(right["full prompt"], right["think ahead"], strict=True)]
    mean = sum(losses) / count
    error = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / max(1, count - 1) / count)
    return {
        "problems": count,
        "right": {name: sum(each) / count for name, each in right.items()},
        "answers ahead that differ from the full prompt's": len(differ),
        "of which": differ[:8],
        "points lost by thinking ahead": 100 * mean,
        "one-sided 95 % bound": 100 * (mean + 1.645 * error),
    }


def answered(text: str, expected: str) -> bool:
    """Whether the last number said is the expected one."""
    words = text.replace(".", " ").replace(",", "").split()
    numbers = [word for word in words if word.lstrip("-").isdigit()]
    return bool(numbers) and numbers[-1] == expected
