"""The four arms of `benchmarks.preemption` on a GPU: a chat beside images of SDXL's shape and long
prompts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.arms import ARMS
from benchmarks.arrivals import Arrival, Outcome, run, waits
from benchmarks.gpu_book import Book
from benchmarks.sdxl_shape import Shape
from benchmarks.shaped import chat, image
from benchmarks.stats import paired_ratio, percentile
from pipelines.contract import Pipeline
from pipelines.device import open_device
from pipelines.messages import ImageRequest, JobClass, Sampling, TextRequest
from pipelines.text.config import ModelConfig
from server.executor.scheduler import Scheduler

SHARE = 0.8
OURS = "at layers and blocks"


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of a usual and of a long prompt, steps of an image, the promised delay; `seconds` that all arms
    together may take, and at most so many arrivals."""

    prompts: tuple[int, int]
    steps: int
    promised_ms: float
    seconds: float
    most: int


def measure(
    book: Book, config: ModelConfig, shape: Shape, device: torch.device, dtype: torch.dtype, load: Load
) -> None:
    """Items, by policy: the same Poisson arrivals, 60 % REALTIME chats, 30 % images, 10 % long prompts of
    class BATCH, at 0.8 of what was measured to be possible; milliseconds to a chat's first token, of an image
    in all, seconds of device time. `ratio`: of the waits for a first token to ours, paired. First
    `delay`, see there."""
    opened = open_device(str(device), 1)
    opened.enter_thread()
    pipelines: dict[str, Pipeline] = {
        "chat": chat(config, dtype, device, load.prompts),
        "image": image(shape, dtype, device),
    }

    def arm(make: Callable[[float], Scheduler], plan: list[Arrival]) -> Outcome:
        return run(pipelines, make(load.promised_ms), plan, opened, load.promised_ms)

    arm(Scheduler, arrivals(4, load.steps, 1e6, seed=1))
    if "per_second" not in book.body:
        trial = arrivals(10, load.steps, 1e6, seed=2)
        book.put(per_second=SHARE * len(trial) / arm(Scheduler, trial).busy_s)
    book.item("delay", lambda: delay(lambda plan: arm(ARMS[OURS], plan), load))
    rate = book.body["per_second"]
    count = max(6, min(load.most, int(load.seconds * rate / len(ARMS))))
    plan = arrivals(count, load.steps, rate, seed=3)
    for name, make in reversed(ARMS.items()):
        ours = book.items.get(OURS, {}).get("waits_ms")
        book.item(name, lambda make=make, ours=ours: row(plan, arm(make, plan), ours))  # type: ignore[misc]
        told = {key: value for key, value in book.items[name].items() if key != "waits_ms"}
        print(f"  {name}: " + ", ".join(f"{key} {value:.1f}" for key, value in told.items()), flush=True)


def delay(ours: Callable[[list[Arrival]], Outcome], load: Load) -> dict[str, float]:
    """How much later a chat's first token comes for an image that is being drawn: milliseconds, alone and in
    the midst of an evaluation, wherever it stands."""
    rng = random.Random(4)
    asked = TextRequest((), Sampling(max_tokens=1))
    times = [0.3 * at + rng.uniform(0.0, 0.1) for at in range(1, load.most // 4 + 1)]
    chats = [Arrival(at_s, "chat", JobClass.REALTIME, asked, None) for at_s in times]
    drawn = Arrival(0.0, "image", JobClass.STANDARD, ImageRequest("x", steps=load.steps), None)
    beside = [drawn] * (1 + int(load.seconds / 6)) + chats
    free = waits(chats, ours(chats), JobClass.REALTIME)
    busy = waits(beside, ours(beside), JobClass.REALTIME)
    found = {"alone_p50_ms": percentile(free, 0.5), "beside_p50_ms": percentile(busy, 0.5)}
    found["beside_p99_ms"] = percentile(busy, 0.99)
    found["delay_p50_ms"] = found["beside_p50_ms"] - found["alone_p50_ms"]
    return found


def arrivals(count: int, steps: int, rate: float, seed: int) -> list[Arrival]:
    """Poisson, `rate` a second; the first three are of the three kinds."""
    rng = random.Random(seed)
    found, at_s = [], 0.0
    for number in range(count):
        at_s += rng.expovariate(rate)
        kind = (
            ("chat", "image", "long")[number]
            if number < 3
            else rng.choices(("chat", "image", "long"), (6, 3, 1))[0]
        )
        if kind == "image":
            found.append(Arrival(at_s, "image", JobClass.STANDARD, ImageRequest("x", steps=steps), None))
        elif kind == "chat":
            asked = TextRequest((), Sampling(max_tokens=16))
            found.append(Arrival(at_s, "chat", JobClass.REALTIME, asked, None))
        else:
            asked = TextRequest((), Sampling(max_tokens=2, stop=("x",)))
            found.append(Arrival(at_s, "chat", JobClass.BATCH, asked, None))
    return found


def row(plan: list[Arrival], outcome: Outcome, ours: list[float] | None) -> dict[str, Any]:
    """Of one arm; ours: the waits that the ratio is to, its own where None."""
    chats = waits(plan, outcome, JobClass.REALTIME)
    ratio, low, high = paired_ratio(chats, ours or chats)
    images = [
        (outcome.done_s[number] - each.at_s) * 1e3
        for number, each in enumerate(plan, 1)
        if each.job_class is JobClass.STANDARD
    ]
    return {
        "token_p50_ms": percentile(chats, 0.5),
        "token_p99_ms": percentile(chats, 0.99),
        "image_mean_ms": sum(images) / max(1, len(images)),
        "busy_s": outcome.busy_s,
        "preemptions": float(outcome.preemptions),
        "longest_gap_ms": outcome.longest_gap_ms,
        "ratio": ratio,
        "low": low,
        "high": high,
        "waits_ms": chats,
    }
