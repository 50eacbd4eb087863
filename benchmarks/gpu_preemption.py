"""The four arms of `benchmarks.preemption` on a GPU: a chat beside images of SDXL's shape and long
prompts."""

from __future__ import annotations

import random
from typing import Any

import torch

from benchmarks.arms import ARMS
from benchmarks.arrivals import Arrival, Outcome, run, waits
from benchmarks.sdxl_shape import Shape
from benchmarks.shaped import chat, image
from benchmarks.stats import paired_ratio, percentile
from pipelines.contract import Pipeline
from pipelines.device import open_device
from pipelines.messages import ImageRequest, JobClass, Sampling, TextRequest
from pipelines.text.config import ModelConfig
from server.executor.scheduler import Scheduler

LOAD = 0.8


def measure(
    config: ModelConfig,
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    *,
    prompts: tuple[int, int],
    count: int,
    steps: int,
    promised_ms: float,
) -> dict[str, Any]:
    """The same Poisson arrivals under each policy: 60 % REALTIME chats, 30 % images, 10 % long prompts of
    class BATCH; milliseconds to a chat's first token, of an image in all, seconds of device time."""
    opened = open_device(str(device), 1)
    opened.enter_thread()
    pipelines: dict[str, Pipeline] = {
        "chat": chat(config, dtype, device, prompts),
        "image": image(shape, dtype, device),
    }
    run(pipelines, Scheduler(promised_ms), arrivals(4, steps, 1e6, seed=1), opened, promised_ms)
    trial = arrivals(max(4, count // 6), steps, 1e6, seed=2)
    capacity = len(trial) / run(pipelines, Scheduler(promised_ms), trial, opened, promised_ms).busy_s
    plan = arrivals(count, steps, LOAD * capacity, seed=3)
    outcomes = {
        name: run(pipelines, make(promised_ms), plan, opened, promised_ms) for name, make in ARMS.items()
    }
    found: dict[str, Any] = {name: row(plan, outcome) for name, outcome in outcomes.items()}
    ours = waits(plan, outcomes["at layers and blocks"], JobClass.REALTIME)
    for name, outcome in outcomes.items():
        ratio, low, high = paired_ratio(waits(plan, outcome, JobClass.REALTIME), ours)
        found[name] |= {"ratio": ratio, "low": low, "high": high}
        times = ", ".join(f"{key} {value:.1f}" for key, value in found[name].items())
        print(f"  {name}: {times}")
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


def row(plan: list[Arrival], outcome: Outcome) -> dict[str, float]:
    """Of one arm."""
    chats = waits(plan, outcome, JobClass.REALTIME)
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
    }
