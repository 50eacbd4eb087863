"""Arrivals for the preemption benchmark: what comes, and when.

Times are Poisson, or those of a public trace scaled to the wanted rate: the Azure LLM inference traces (CSV,
one row a request) or a ServeGen file (JSON lines, one client a line, whose arrivals in each stretch of ten
minutes are Gamma or Weibull with a measured burstiness). What arrives is the same for all: embedded models,
a fixed mix of the four classes.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from pipelines.contract import Pipeline
from pipelines.messages import (
    ImageRequest,
    Input,
    JobClass,
    PromptRevision,
    Request,
    Sampling,
    SpeechRequest,
    SpeechText,
    TextRequest,
)

SENTENCE = "The boat is on the water, and the water is calm."
QUESTION = "Hello! What can you do for me today?"
FILLER = "the little red boat on the calm green water turns left at noon "
MIX = {"voice": 0.4, "chat": 0.3, "image": 0.2, "long": 0.1}
QLLM_MIX = {"chat": 0.2, "long": 0.8}
"""20 % latency-sensitive text, the rest best effort."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a job is: tokens of a chat's answer, repetitions in a long prompt, denoising steps, tokens of
    the answer to a long prompt."""

    sentence: str = SENTENCE
    chat_tokens: int = 24
    filler: int = 90
    steps: int = 8
    long_tokens: int = 4


QUICK = Sizes("The boat is on the water.", 8, 20, 2)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job and when it comes, in seconds from the start."""

    at_s: float
    kind: str
    pipeline: str
    job_class: JobClass
    request: Request
    first: Input | None
    tenant: str = "local"


def arrivals(
    pipelines: dict[str, Pipeline], at_s: list[float], seed: int, mix: dict[str, float], sizes: Sizes
) -> list[Arrival]:
    """One job at each of these times, its kind drawn from the mix."""
    names = {pipeline.info.modality: name for name, pipeline in pipelines.items()}
    rng = random.Random(seed)
    kinds = rng.choices(tuple(mix), tuple(mix.values()), k=len(at_s))
    return [
        Arrival(when, kind, *_job(kind, names, seed * 100_000 + number, sizes))
        for number, (when, kind) in enumerate(zip(at_s, kinds, strict=True))
    ]


def _job(
    kind: str, names: dict[str, str], number: int, sizes: Sizes
) -> tuple[str, JobClass, Request, Input | None]:
    if kind == "voice":
        return names["speech"], JobClass.REALTIME, SpeechRequest(), SpeechText(sizes.sentence, True)
    if kind == "image":
        image = ImageRequest("a red boat on the water", steps=sizes.steps, seed=number)
        return names["image"], JobClass.STANDARD, image, None
    long = kind == "long"
    prompt = PromptRevision(1, f"{number} " + (FILLER * sizes.filler if long else QUESTION), True)
    tokens = sizes.long_tokens if long else sizes.chat_tokens
    text = TextRequest((), Sampling(max_tokens=tokens, seed=number, temperature=0.8))
    return names["text"], JobClass.BATCH if long else JobClass.INTERACTIVE, text, prompt


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Endless, `rate` a second."""
    rng, at_s = random.Random(seed), 0.0
    while True:
        at_s += rng.expovariate(rate)
        yield at_s


def from_trace(path: Path, rate: float, seed: int) -> Iterator[float]:
    """The trace's gaps from a place that the seed chooses, scaled so that they are 1 / rate in the mean."""
    rng = random.Random(seed)
    gaps = _azure_gaps(path) if path.suffix == ".csv" else _servegen_gaps(path, rng)
    place, at_s, scale = rng.randrange(len(gaps)), 0.0, len(gaps) / sum(gaps) / rate
    while True:
        at_s += gaps[place] * scale
        place = (place + 1) % len(gaps)
        yield at_s


def _azure_gaps(path: Path) -> list[float]:
    """Seconds between the rows of TIMESTAMP, ContextTokens, GeneratedTokens."""
    with path.open() as lines:
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in csv.DictReader(lines)]
    return [after - before for before, after in pairwise(times)]


def _servegen_gaps(path: Path, rng: random.Random, stretch_s: float = 600.0) -> list[float]:
    """Arrivals of all clients of the file in its busiest stretch, drawn again from their distributions."""
    clients = [json.loads(line)["trace"] for line in path.read_text().splitlines()]
    busiest = max(range(min(map(len, clients))), key=lambda n: sum(float(trace[n][1]) for trace in clients))
    times: list[float] = []
    for trace in clients:
        _, rate, _, family, shape, scale = trace[busiest]
        if float(rate) == 0.0 or not family:
            continue
        draw = rng.gammavariate if family == "Gamma" else lambda k, s: rng.weibullvariate(s, k)
        at_s = rng.random() / float(rate)
        while at_s < stretch_s:
            times.append(at_s)
            at_s += draw(float(shape), float(scale))
    times.sort()
    return [after - before for before, after in pairwise(times)]
