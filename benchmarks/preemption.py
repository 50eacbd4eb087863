"""What preemption does for a voice beside images: `python -m benchmarks.preemption [--quick] [--json FILE]`.

The same arrivals, at 0.9 of the measured capacity, under four policies: first come first served to the end;
priorities at admission; at slice ends (token, prompt chunk, denoising step); inside slices (layer, block).
REALTIME: a spoken sentence that a listener plays. INTERACTIVE: a chat answer. STANDARD: images. BATCH: long
prompts. Arrivals come in windows; in each window the arms follow one another, in an order that rotates, each
from rest. Time is a core's CPU time (`timeline`): real models, no waiting. `--setting qllm` is the setting
of QLLM (2025): 20 % latency-sensitive text, the device saturated. `--larger` takes larger models with random
weights (`benchmarks.larger`). `--trace` takes the arrival times of a
public trace. `--keep FILE` keeps the raw streams and goes on where an earlier call has stopped.

A gate comes first: what the fourth arm did on fresh pipelines is recorded and done again on others without
suspension; every emission must be bit-equal, or nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch

from benchmarks import larger
from benchmarks.arms import ARMS
from benchmarks.gate import replayed
from benchmarks.load import MIX, QLLM_MIX, QUICK, Arrival, Sizes, arrivals, from_trace, poisson
from benchmarks.preemption_report import ArmFigures, cost_errors, figures, print_rows, ratios, spent
from benchmarks.stats import machine
from benchmarks.timeline import PROMISE_MS, Outcome, Run, Stream
from pipelines.contract import Pipeline
from pipelines.loading import LoadPlan, load_all
from server.executor.device_process import settle
from server.executor.recording import Recording
from server.executor.scheduler import Scheduler

LOAD, SATURATED = 0.9, 1.5
PLAN = LoadPlan(transcription=False, max_jobs=4096)
ALONE = ("voice", "chat")


class Bench:
    """Loaded pipelines and what is asked of them."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        """root: a folder for larger models."""
        self.options = options
        self.load_plan = larger.plan(root) if options.larger else PLAN
        self.sizes = QUICK if options.quick else Sizes()
        self.mix = QLLM_MIX if options.setting == "qllm" else MIX
        self.pipelines: dict[str, Pipeline] = load_all(self.load_plan)
        settle()

    def jobs(self, times: list[float], seed: int, mix: dict[str, float] | None = None) -> list[Arrival]:
        return arrivals(self.pipelines, times, seed, mix or self.mix, self.sizes)

    def gate(self, count: int) -> int:
        """Replay equality on fresh pipelines, which also warms ours up; returns the suspensions. Of the mix,
        whatever the setting: short prompts alone suspend nobody."""
        recorded = Recording()
        Run(self.pipelines, Scheduler, self.jobs(_spread(count, 0.04), 1, MIX), recorded).go()
        return replayed(recorded, load_all(self.load_plan))

    def capacity(self, count: int) -> float:
        """Jobs a second of device time, where they come as they will come, but faster than they can be
        served. All there at once they share slices as they never do later, and take a quarter less each."""
        heap_s = Run(self.pipelines, Scheduler, self.jobs(_spread(count, 0.0), 2)).go().busy_s
        times = list(islice(poisson(count / heap_s, 2), 2 * count))
        return len(times) / Run(self.pipelines, Scheduler, self.jobs(times, 4)).go().busy_s

    def unloaded(self, count: int) -> dict[str, list[Stream]]:
        """Voices and chats that meet nobody."""
        found = {}
        for kind in (kind for kind in ALONE if kind in self.mix):
            plan = self.jobs(_spread(count, 6.0), 3, {kind: 1.0})
            found[kind] = list(Run(self.pipelines, Scheduler, plan).go().streams.values())
        return found

    def window(self, number: int, size: int, rate: float) -> dict[str, Outcome]:
        """All arms on one window's arrivals; who begins rotates."""
        trace: Path | None = self.options.trace
        times = from_trace(trace, rate, number) if trace else poisson(rate, number)
        plan = self.jobs(list(islice(times, size)), 100 + number)
        names = list(ARMS)
        order = names[number % len(names) :] + names[: number % len(names)]
        return {name: self._arm(name, plan, f"{number} {name}") for name in order}

    def _arm(self, name: str, plan: list[Arrival], scope: str) -> Outcome:
        return Run(self.pipelines, ARMS[name], plan, scope=scope).go()


def _window(wanted: int) -> int:
    """Arrivals in a window: each arm begins one. Short windows judge work that waits by what is left at
    their end."""
    return min(wanted, max(300, wanted // len(ARMS)))


def _spread(count: int, gap_s: float) -> list[float]:
    return [number * gap_s for number in range(count)]


def measure(bench: Bench, arrivals_wanted: int, window: int) -> dict[str, object]:
    """Everything, window by window; what is kept is written after each."""
    keep: Path | None = bench.options.keep
    kept = json.loads(keep.read_text()) if keep and keep.exists() else None
    if kept is None:
        suspensions = bench.gate(24 if bench.options.quick else 80)
        alone = {kind: [asdict(s) for s in found] for kind, found in bench.unloaded(12).items()}
        load = SATURATED if bench.options.setting == "qllm" else LOAD
        kept = {"rate": load * bench.capacity(60), "load": load, "replayed_suspensions": suspensions}
        kept |= {"alone": alone, "windows": []}
    else:
        bench.capacity(60)  # a fresh process: costs are learned before anything is measured
    while len(kept["windows"]) * window < arrivals_wanted:
        number, start = len(kept["windows"]), time.perf_counter()
        done = bench.window(number, window, kept["rate"])
        kept["windows"].append({name: asdict(outcome) for name, outcome in done.items()})
        print(
            f"window {number}: {window} arrivals, four arms, {time.perf_counter() - start:.0f} s", flush=True
        )
        if keep:
            keep.write_text(json.dumps(kept))
            if bench.options.one_window:
                break
    return dict(kept)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 small arrivals instead of 3,000")
    parser.add_argument("--arrivals", type=int, help="how many arrivals, in four windows or windows of 300")
    parser.add_argument("--setting", choices=("mix", "qllm"), default="mix", help="who arrives")
    parser.add_argument("--larger", action="store_true", help="larger models with random weights")
    parser.add_argument("--trace", type=Path, help="times of an Azure (CSV) or ServeGen (JSON lines) trace")
    parser.add_argument("--keep", type=Path, help="raw streams; an earlier call's are continued")
    parser.add_argument("--one-window", action="store_true", help="with --keep: stop after one window")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = options.arrivals or (300 if options.quick else 3000)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as root:
        kept = measure(Bench(options, Path(root)), wanted, _window(wanted))
    rows = figures(kept)
    print_rows(kept, rows)
    if options.json:
        options.json.write_text(json.dumps(_report(options, kept, rows), indent=1) + "\n")


def _report(
    options: argparse.Namespace, kept: dict[str, object], rows: dict[str, ArmFigures]
) -> dict[str, object]:
    windows = kept["windows"]
    assert isinstance(windows, list)
    settings = {
        "arrivals": sum(len(next(iter(window.values()))["streams"]) for window in windows),
        "windows": len(windows),
        "load": kept["load"],
        "rate_per_s": kept["rate"],
        "setting": options.setting,
        "models": "42M Llama, quarter of SDXL's U-Net, random" if options.larger else "embedded",
        "arrival_times": options.trace.stem if options.trace else "poisson",
        "promised_ms": PROMISE_MS,
        "threads": 1,
        "clock": "CPU time of the executor's thread; idle time skipped",
        "sizes": asdict(QUICK if options.quick else Sizes()),
        "replayed_suspensions": kept["replayed_suspensions"],
        "cost_error_median": cost_errors(kept),
        "device_time": spent(kept),
    }
    arms = {name: row.values for name, row in rows.items()}
    body: dict[str, object] = {"name": "preemption", "hardware": machine(), "command": machine()["command"]}
    body |= {"settings": settings, "arms": arms, "ratios": ratios(kept, rows)}
    body |= {"baseline": arms["first come, first served"], "upbeat": arms["at layers and blocks"]}
    return body


if __name__ == "__main__":
    main()
