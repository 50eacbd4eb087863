"""What speculation gains: `python -m benchmarks.speculation [--quick] [--only WORKLOADS] [--json FILE]`.

Each drafter, and all together, against plain decoding: same weights, same run, one torch thread, greedy. The
arms answer the same requests, alternating in changing order; each request is asked once of an arm, so that
what a drafter learns comes from other requests. Time is CPU time of the one thread, from admission to the
last chunk, prompt included (tokenising is not). A ratio is plain time over the arm's, paired by request (by
group of requests in larger batches), with its 95 % bootstrap interval. The prompt sets are those that the
embedded model knows (conversations, word problems, a prompt in which one word changes) and, where the data
folder is, HumanEval's and Spec-Bench's, which it does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.speculation_prompts import Ask, Question, workloads
from benchmarks.stats import machine, paired_ratio
from pipelines.contract import Budget, Emission, Job
from pipelines.loading import EMBEDDED
from pipelines.messages import Done, JobClass, Message, PromptRevision, Sampling, TextRequest, TokenChunk
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from pipelines.text.speculation.draft_model import KIND
from pipelines.text.speculation.drafters import DRAFTERS

MODEL = "draft model"
MEAN = "geometric mean, all"
Figures = dict[str, dict[str, Any]]
ARMS: dict[str, tuple[str, ...]] = {
    "plain": (),
    **{name: (name,) for name in (*DRAFTERS, MODEL)},
    "all but the draft model": DRAFTERS,
    "all": (*DRAFTERS, MODEL),
}
DRAFT = EMBEDDED / "upbeat-text-draft"
BUDGET = Budget(slice_ms=50.0, gap_ms=25.0)
MAX_TOKENS = 64


@dataclass(slots=True)
class Tally:
    """One arm in one cell: seconds by group, and what was done in all."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    passes: int = 0
    asked: int = 0
    drafted: int = 0
    accepted: int = 0
    drafting: int = 0


class Arm:
    """One pipeline, run as an executor without other work would."""

    def __init__(self, folder: Path, names: tuple[str, ...], draft: Path = DRAFT) -> None:
        given = str(draft) if MODEL in names else ""
        settings = TextSettings(drafters=tuple(name for name in names if name != MODEL), draft=given)
        self.pipeline = TextPipeline.load(folder, name="text", settings=settings)
        self._ids = itertools.count(1)

    def answer(self, group: Sequence[Question], tally: Tally) -> list[str]:
        """All requests of a group at once."""
        jobs, prepared = [], []
        for question in group:
            request = TextRequest(question.history, Sampling(max_tokens=MAX_TOKENS))
            job = Job(next(self._ids), "text", "local", JobClass.INTERACTIVE, request)
            jobs.append(job)
            revision = PromptRevision(1, question.prompt, True)
            prepared.append((self.pipeline.prepare(request, None), self.pipeline.prepare(request, revision)))
        drafts = [self.pipeline._tokenizer.encode(question.before).ids for question in group]
        texts = dict.fromkeys((job.id for job in jobs), "")
        start = time.thread_time()
        for job, (admitted, prompt), draft in zip(jobs, prepared, drafts, strict=True):
            self.pipeline.admit(job, admitted)
            self.pipeline.update(job, prompt)
            job.state.expect(draft)
        while True:
            batch = self.pipeline.plan((job for job in jobs if self.pipeline.ready(job)), BUDGET)
            if batch is None:
                break
            begun = time.thread_time()
            for emission in self.pipeline.run(batch):
                if isinstance(emission, Emission):
                    _take(emission, texts, tally)
            self.pipeline.observe(batch, (time.thread_time() - begun) * 1000)
            if batch.kind == KIND:
                tally.asked += 1
                continue
            tally.passes += 1
            tally.drafting += sum(1 for draft in batch.work.drafts if draft)
        tally.seconds.append(time.thread_time() - start)
        for job in jobs:
            self.pipeline.release(job)
        return list(texts.values())


def _take(emission: Emission, texts: dict[int, str], tally: Tally) -> None:
    if isinstance(emission.chunk, TokenChunk):
        texts[emission.job.id] += emission.chunk.text
    elif isinstance(emission.chunk, Done):
        usage = emission.chunk.usage
        tally.tokens += usage.completion_tokens
        tally.drafted += usage.drafted_tokens
        tally.accepted += usage.accepted_tokens


def cell(folder: Path, questions: Sequence[Question], rows: int, rng: random.Random) -> dict[str, Tally]:
    """All arms over the same groups of requests; the first two groups warm up."""
    arms = {name: Arm(folder, drafters) for name, drafters in ARMS.items()}
    tallies = {name: Tally() for name in arms}
    groups = [questions[start : start + rows] for start in range(0, len(questions), rows)]
    for number, group in enumerate(groups):
        said = {}
        for name in rng.sample(list(arms), len(arms)):
            said[name] = arms[name].answer(group, tallies[name] if number > 1 else Tally())
        differing = [name for name in said if said[name] != said["plain"]]
        assert not differing, f"{differing} say something else than plain decoding"
    return tallies


def report(tally: Tally, plain: Tally) -> dict[str, Any]:
    """One arm's figures in one cell."""
    ratio, low, high = paired_ratio(plain.seconds, tally.seconds)
    return {
        "tokens_per_second": round(tally.tokens / sum(tally.seconds), 1),
        "ratio": round(ratio, 3),
        "interval": [round(low, 3), round(high, 3)],
        "acceptance": round(tally.accepted / max(1, tally.drafted), 3),
        "mean_length": round(tally.drafted / max(1, tally.drafting), 2),
        "passes_per_token": round(tally.passes / max(1, tally.tokens), 3),
        "draft_slices_per_token": round(tally.asked / max(1, tally.tokens), 3),
        "wasted_per_token": round((tally.drafted - tally.accepted) / max(1, tally.tokens), 3),
        "groups": len(tally.seconds),
    }


def _asker(arm: Arm) -> Ask:
    def ask(messages: list[Message]) -> str:
        return arm.answer([Question(tuple(messages[:-1]), messages[-1].content)], Tally())[0]

    return ask


def measure(folder: Path, groups: dict[int, int], names: Sequence[str]) -> Iterator[tuple[str, Figures]]:
    """Every named workload at every batch size, one by one. groups: how many by batch size."""
    rng = random.Random(0)
    ask = _asker(Arm(folder, ()))
    for name in names:
        make = workloads()[name]
        for rows, count in groups.items():
            questions = list(itertools.islice(make(rows, ask), rows * (count + 2)))
            tallies = cell(folder, questions, rows, rng)
            figures = {arm: report(tally, tallies["plain"]) for arm, tally in tallies.items()}
            line = "  ".join(f"{arm} {each['ratio']:.2f}" for arm, each in figures.items())
            print(f"{name:17} batch {rows:2}: {line}", flush=True)
            yield f"{name}, batch {rows}", figures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the groups")
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--folder", type=Path, default=EMBEDDED / "upbeat-text", help="text model")
    parser.add_argument("--only", default=",".join(workloads()), help="others are kept as the file has them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups = {1: 12, 4: 5, 16: 2} if options.quick else {1: 60, 4: 24, 16: 10}
    cells: dict[str, Figures] = {}
    if options.json is not None and options.json.exists():
        found = json.loads(options.json.read_text(encoding="utf-8"))
        cells = {name: {"plain": found["baseline"][name], **arms} for name, arms in found["upbeat"].items()}
    with torch.inference_mode():
        for name, figures in measure(options.folder, groups, options.only.split(",")):
            cells[name] = figures
            result = summary(cells, groups, quick=options.quick)
            if options.json is not None:
                options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"all drafters, geometric mean: {result['ratios'][MEAN]}")


def summary(cells: dict[str, Figures], groups: dict[int, int], *, quick: bool) -> dict[str, Any]:
    """The report so far: a run that is cut short leaves what it has measured."""
    ratios = {f"{name}, {arm}": each[arm]["ratio"] for name, each in cells.items() for arm in each}
    together = [value for name, value in ratios.items() if name.endswith(", all")]
    mean = math.exp(sum(map(math.log, together)) / len(together))
    return {
        "name": "speculation",
        "hardware": machine(),
        "command": "python -m benchmarks.speculation" + (" --quick" if quick else ""),
        "settings": {"max_tokens": MAX_TOKENS, "temperature": 0, "threads": 1, "groups": groups},
        "baseline": {name: each["plain"] for name, each in cells.items()},
        "upbeat": {name: {a: f for a, f in each.items() if a != "plain"} for name, each in cells.items()},
        "ratios": {name: value for name, value in ratios.items() if not name.endswith(", plain")}
        | {MEAN: round(mean, 3)},
    }


if __name__ == "__main__":
    main()
