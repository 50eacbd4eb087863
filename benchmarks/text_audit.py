"""Does timing tell what another tenant asked? `python -m benchmarks.text_audit [--quick] [--json FILE]`.

A victim asks a prompt, so that its KV is cached and its answer known to what learns online. Then an attacker
of another tenant asks either that very prompt or one that nobody has asked, in random order, each time a new
one. AUC is the chance that the victim's prompt was answered faster than another: 0.5 tells nothing. With the
tenants' salt taken away the same audit has to find the cache, or it could not find anything. Time is CPU time
of the one thread, to the first token and to the answer's end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.stats import machine
from pipelines.contract import Budget, Job
from pipelines.loading import EMBEDDED, EMBEDDED_DRAFT
from pipelines.messages import JobClass, Sampling, TextRequest
from pipelines.text.pipeline import TextPipeline
from pipelines.text.requests import PreparedPrompt
from pipelines.text.settings import TextSettings

PROMPT_TOKENS = 96
ANSWER_TOKENS = 4
WARM_UP = 40
BUDGET = Budget(slice_ms=50.0, gap_ms=25.0)


class Asker:
    """One pipeline, asked by tenants."""

    def __init__(self, folder: Path) -> None:
        settings = TextSettings(draft=str(EMBEDDED / EMBEDDED_DRAFT))
        self._pipeline = TextPipeline.load(folder, name="text", settings=settings)
        self._ids = itertools.count(1)

    def ask(self, tenant: str, prompt: Sequence[int]) -> tuple[float, float]:
        """Seconds to the first token and to the last."""
        request = TextRequest(sampling=Sampling(max_tokens=ANSWER_TOKENS))
        job = Job(next(self._ids), "text", tenant, JobClass.INTERACTIVE, request)
        prepared = self._pipeline.prepare(request, None)
        start = time.thread_time()
        self._pipeline.admit(job, prepared)
        self._pipeline.update(job, PreparedPrompt(1, tuple(prompt), final=True))
        first = 0.0
        while not job.state.finished:
            batch = self._pipeline.plan([job], BUDGET)
            assert batch is not None
            begun = time.thread_time()
            for _ in self._pipeline.run(batch):
                pass
            now = time.thread_time()
            self._pipeline.observe(batch, 1000 * (now - begun))
            first = first or (now - start if job.state.drawn > 0 else 0.0)
        end = time.thread_time() - start
        self._pipeline.release(job)
        return first, end


def unsalted() -> AbstractContextManager[Any]:
    """All tenants share what is cached and learned: what the salt prevents."""
    return mock.patch("pipelines.text.pipeline.root_key", return_value=b"everybody")


def audit(folder: Path, samples: int, *, salted: bool) -> dict[str, float]:
    """AUC by what was timed, of `samples` prompts of the victim's and as many of nobody's."""
    rng = random.Random(0)

    def prompt() -> list[int]:
        return [rng.randrange(10, 4096) for _ in range(PROMPT_TOKENS)]

    labels = [True] * samples + [False] * samples
    rng.shuffle(labels)
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with nullcontext() if salted else unsalted(), torch.inference_mode():
        asker = Asker(folder)
        for number, known in enumerate([True, False] * WARM_UP + labels):
            secret, other = prompt(), prompt()
            asker.ask("victim", secret)
            took = asker.ask("attacker", secret if known else other)
            if number >= 2 * WARM_UP:
                times[known].append(took)
    return {
        name: auc([each[place] for each in times[False]], [each[place] for each in times[True]])
        for place, name in enumerate(("first token", "answer"))
    }


def auc(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The chance that one of `slow` is larger than one of `fast`, ties counting half."""
    values = np.concatenate((np.asarray(slow), np.asarray(fast)))
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[place]
    return float((ranks[: len(slow)].sum() / len(slow) - (len(slow) + 1) / 2) / len(fast))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples, control = (200, 100) if options.quick else (2_000, 500)
    folder = EMBEDDED / "upbeat-text"
    found = {"salted": audit(folder, samples, salted=True), "salt off": audit(folder, control, salted=False)}
    for name, each in found.items():
        print(f"{name}: AUC {', '.join(f'{what} {value:.3f}' for what, value in each.items())}")
    result = {
        "name": "text_audit",
        "hardware": machine(),
        "settings": {"samples": 2 * samples, "samples with the salt off": 2 * control, "threads": 1}
        | {"prompt_tokens": PROMPT_TOKENS, "answer_tokens": ANSWER_TOKENS},
        "auc": found,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
