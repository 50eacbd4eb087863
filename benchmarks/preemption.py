"""What preemption does for a voice beside images: `python -m benchmarks.preemption [--quick] [--json FILE]`.

The same Poisson arrivals, at a given share of the measured capacity, under four policies: first come first
served; priorities at admission; at slice ends (token, prompt chunk, denoising step); inside slices (layer,
block). Embedded models, one torch thread, real time, arms one after the other. REALTIME: a spoken sentence,
time to its first audio. INTERACTIVE: a chat answer, time to its first token. STANDARD: images. BATCH: long
prompts. Background throughput is the device time that all work took, against the last arm.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.arms import ARMS
from benchmarks.stats import machine, paired_ratio, percentile
from pipelines.contract import Budget, Emitted, Job, Pipeline
from pipelines.device import CpuDevice
from pipelines.loading import LoadPlan, load_all
from pipelines.messages import (
    Done,
    ImageRequest,
    Input,
    JobClass,
    PromptRevision,
    Request,
    Sampling,
    SpeechRequest,
    SpeechText,
    Submit,
    TextRequest,
)
from server.executor.device_process import settle
from server.executor.executor import DeviceExecutor
from server.executor.intake import Intake
from server.executor.scheduler import Scheduler

PROMISE_MS = 25.0
LOAD = 0.9
SENTENCE = "The boat is on the water, and the water is calm."
QUESTION = "Hello! What can you do for me today?"
FILLER = "the little red boat on the calm green water turns left at noon "


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job and when it comes, in seconds from the start."""

    at_s: float
    pipeline: str
    job_class: JobClass
    request: Request
    first: Input | None


@dataclass(slots=True)
class Outcome:
    """Of one arm: seconds by job number."""

    first_s: dict[int, float] = field(default_factory=dict)
    done_s: dict[int, float] = field(default_factory=dict)
    busy_s: float = 0.0
    preemptions: int = 0
    longest_gap_ms: float = 0.0


def arrivals(pipelines: dict[str, Pipeline], count: int, rate: float, seed: int) -> list[Arrival]:
    """Poisson, `rate` a second: 40 % spoken sentences, 30 % chat, 20 % images, 10 % long prompts."""
    names = {pipeline.info.modality: name for name, pipeline in pipelines.items()}
    rng = random.Random(seed)
    found, at_s = [], 0.0
    for number in range(count):
        at_s += rng.expovariate(rate)
        kind = rng.choices(("voice", "chat", "image", "long"), (4, 3, 2, 1))[0]
        found.append(Arrival(at_s, *_job(kind, names, number)))
    return found


def _job(kind: str, names: dict[str, str], number: int) -> tuple[str, JobClass, Request, Input | None]:
    if kind == "voice":
        return names["speech"], JobClass.REALTIME, SpeechRequest(), SpeechText(SENTENCE, True)
    if kind == "image":
        image = ImageRequest("a red boat on the water", steps=8, seed=number)
        return names["image"], JobClass.STANDARD, image, None
    long = kind == "long"
    prompt = PromptRevision(1, f"{number} " + (FILLER * 90 if long else QUESTION), True)
    text = TextRequest((), Sampling(max_tokens=4 if long else 24, seed=number, temperature=0.8))
    return names["text"], JobClass.BATCH if long else JobClass.INTERACTIVE, text, prompt


def run(pipelines: dict[str, Pipeline], scheduler: Scheduler, plan: list[Arrival]) -> Outcome:
    """All arrivals under one policy, in real time, on this thread."""
    outcome = Outcome()
    began_s = time.perf_counter()

    def emit(job: Job, chunk: Emitted) -> None:
        now_s = time.perf_counter() - began_s
        outcome.first_s.setdefault(job.id, now_s)
        if isinstance(chunk, Done):
            outcome.done_s[job.id] = now_s

    pending: Iterator[tuple[int, Arrival]] = iter(enumerate(plan, 1))
    upcoming = next(pending, None)

    def arrive() -> bool:
        nonlocal upcoming
        while upcoming is not None and upcoming[1].at_s <= time.perf_counter() - began_s:
            number, each = upcoming
            turn = f"t{number}"
            intake.take(
                Submit(
                    number,
                    each.pipeline,
                    "s",
                    turn,
                    "local",
                    each.job_class,
                    each.request,
                    1 << 30,
                    first=each.first,
                )
            )
            upcoming = next(pending, None)
        return False

    executor = DeviceExecutor(
        pipelines, scheduler, CpuDevice(1), Budget(60.0, PROMISE_MS), emit, give_way=arrive
    )
    intake = Intake(pipelines, executor.inbox.post)
    while len(outcome.done_s) < len(plan):
        arrive()
        if not executor.step() and upcoming is not None:
            time.sleep(max(0.0, upcoming[1].at_s - (time.perf_counter() - began_s)))
    outcome.busy_s = executor.counters.busy_s
    outcome.preemptions = executor.counters.preemptions
    outcome.longest_gap_ms = executor.counters.gaps.longest_ms
    return outcome


def waits(plan: list[Arrival], outcome: Outcome, job_class: JobClass) -> list[float]:
    """Milliseconds to the first chunk of the class's jobs, in order of arrival."""
    numbered = ((number, each) for number, each in enumerate(plan, 1) if each.job_class is job_class)
    return [(outcome.first_s[number] - each.at_s) * 1000 for number, each in numbered]


def report(plan: list[Arrival], outcomes: dict[str, Outcome]) -> dict[str, dict[str, float]]:
    """One row an arm, printed and returned."""
    print(
        f"{'':26} {'first audio ms':>16} {'first token ms':>16} {'image ms':>10} {'busy s':>7} {'taken':>6}"
    )
    print(f"{'':26} {'p50':>7} {'p99':>8} {'p50':>7} {'p99':>8} {'mean':>10}")
    rows = {}
    for name, outcome in outcomes.items():
        voice, chat = (waits(plan, outcome, c) for c in (JobClass.REALTIME, JobClass.INTERACTIVE))
        images = [
            (outcome.done_s[n] - each.at_s) * 1000
            for n, each in enumerate(plan, 1)
            if each.job_class is JobClass.STANDARD
        ]
        row = {
            "audio_p50_ms": percentile(voice, 0.5),
            "audio_p99_ms": percentile(voice, 0.99),
            "token_p50_ms": percentile(chat, 0.5),
            "token_p99_ms": percentile(chat, 0.99),
            "image_mean_ms": sum(images) / max(1, len(images)),
            "busy_s": outcome.busy_s,
            "preemptions": float(outcome.preemptions),
        }
        rows[name] = row
        times = " ".join(
            f"{row[key]:{width}.0f}" for key, width in zip(list(row)[:4], (7, 8, 7, 8), strict=True)
        )
        print(f"{name:26} {times} {row['image_mean_ms']:10.0f} {row['busy_s']:7.1f} {outcome.preemptions:5}")
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 arrivals an arm instead of 600")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    count = 100 if options.quick else 600
    pipelines = load_all(LoadPlan(transcription=False))
    settle()
    torch.set_num_threads(1)
    with torch.inference_mode():
        run(pipelines, Scheduler(PROMISE_MS), arrivals(pipelines, 20, 1e6, seed=1))
        capacity = 60 / run(pipelines, Scheduler(PROMISE_MS), arrivals(pipelines, 60, 1e6, seed=2)).busy_s
        plan = arrivals(pipelines, count, LOAD * capacity, seed=3)
        print(f"{count} arrivals at {LOAD * capacity:.1f} a second, {LOAD:.0%} of the measured capacity")
        outcomes = {name: run(pipelines, make(PROMISE_MS), plan) for name, make in ARMS.items()}
    rows = report(plan, outcomes)
    ours = outcomes["at layers and blocks"]
    ratios = {}
    for name in list(ARMS)[:-1]:
        voice = [waits(plan, outcome, JobClass.REALTIME) for outcome in (outcomes[name], ours)]
        ratio, low, high = paired_ratio(*voice)
        ratios[f"first audio, mean, against {name}"] = ratio
        print(f"first audio against {name}: {ratio:.1f} times sooner [{low:.1f}, {high:.1f}]")
    if options.json:
        settings = {"arrivals": count, "load": LOAD, "promised_ms": PROMISE_MS, "threads": 1}
        body = {"name": "preemption", "hardware": machine(), "command": machine()["command"]}
        body |= {"settings": settings, "arms": rows, "ratios": ratios}
        body |= {"baseline": rows["first come, first served"], "upbeat": rows["at layers and blocks"]}
        options.json.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
