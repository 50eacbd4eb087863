"""Voices never run dry: `python -m benchmarks.voices [--minutes N] [--json FILE]`, one minute by default.

As many voices as half of what the device could speak, at least four, each speaking for almost a minute, then
the next, and played as it comes, beside images and long prompts that saturate the device. Underruns are
chunks that came after their listener had run dry; none are allowed. Time is the executor thread's CPU time
(`timeline`). A gate comes first: a shorter run of the same is recorded and done again on fresh pipelines
without suspension; every emission must be bit-equal.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.gate import replayed
from benchmarks.load import Sizes, arrivals
from benchmarks.stats import machine, percentile
from benchmarks.timeline import Run, Stream
from pipelines.contract import Pipeline
from pipelines.loading import LoadPlan, load_all
from server.executor.device_process import settle
from server.executor.recording import Recording
from server.executor.scheduler import Scheduler

LEAST = 4
TURN_S = 60.0
SENTENCE = "The boat is on the water, and the water is calm. "
BETWEEN_S = 2.0
REPEATED = 4
PLAN = LoadPlan(transcription=False, max_jobs=4096)


def capacity(pipelines: dict[str, Pipeline]) -> tuple[float, float]:
    """Seconds of speech a second of the device makes, and how long a sentence is."""
    plan = arrivals(pipelines, [0.0] * 4, 1, {"voice": 1.0}, Sizes(SENTENCE * REPEATED))
    made = Run(pipelines, Scheduler, plan).go()
    spoken_s = sum(held for stream in made.streams.values() for _, held in stream.chunks)
    return spoken_s / made.busy_s, spoken_s / (len(plan) * REPEATED)


def measure(
    pipelines: dict[str, Pipeline],
    voices: int,
    seconds: float,
    sentence_s: float,
    recording: Recording | None = None,
) -> list[Stream]:
    """The voices' streams, beside enough images and prompts to keep the device busy for so long."""
    spoken = Sizes(SENTENCE * max(1, int((min(seconds, TURN_S) - BETWEEN_S) / sentence_s)))
    turns = range(max(1, round(seconds / TURN_S)))
    starts = [turn * TURN_S + number / voices for turn in turns for number in range(voices)]
    plan = arrivals(pipelines, starts, 1, {"voice": 1.0}, spoken)
    every_s = 0.18
    times = [number * every_s for number in range(int(seconds / every_s))]
    plan += arrivals(pipelines, times, 2, {"image": 0.6, "long": 0.4}, Sizes())
    plan.sort(key=lambda each: each.at_s)
    done = Run(pipelines, Scheduler, plan, recording, until_s=seconds, scope="voices").go()
    return [stream for stream in done.streams.values() if stream.kind == "voice"]


def gate(pipelines: dict[str, Pipeline], voices: int, sentence_s: float) -> None:
    """Replay equality of a few seconds, with what was cut off at their end."""
    recorded = Recording()
    measure(pipelines, voices, 6.0, sentence_s, recorded)
    replayed(recorded, load_all(PLAN))


def report(streams: list[Stream], speed: float) -> dict[str, float]:
    """Underruns, silence in all, and what was heard."""
    first = [stream.first_ms for stream in streams if stream.chunks]
    return {
        "voices": float(len(streams)),
        "refused": float(sum(stream.refused for stream in streams)),
        "speech_seconds_a_device_second": speed,
        "heard_s": sum(held for stream in streams for _, held in stream.chunks),
        "underruns": float(sum(stream.underruns() for stream in streams)),
        "dry_s": sum(stream.dry_s() for stream in streams),
        "first_audio_p99_ms": percentile(first, 0.99),
    }


def main() -> None:
    """Command line; exit code 1 where a voice ran dry or was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the voices speak")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipelines = load_all(PLAN)
    settle()
    with torch.inference_mode():
        capacity(pipelines)
        speed, sentence_s = capacity(pipelines)
        voices = max(LEAST, int(speed / 2))
        gate(pipelines, voices, sentence_s)
        found = report(measure(pipelines, voices, options.minutes * 60, sentence_s), speed)
    print("\n".join(f"{name:34} {value:10.1f}" for name, value in found.items()))
    if options.json:
        body = {"name": "voices", "hardware": machine(), "command": machine()["command"]}
        body |= {"settings": {"minutes": options.minutes, "at_once": voices}, "upbeat": found}
        options.json.write_text(json.dumps(body, indent=1) + "\n")
    sys.exit(found["underruns"] > 0 or found["refused"] > 0)


if __name__ == "__main__":
    main()
