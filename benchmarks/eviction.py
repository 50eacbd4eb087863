"""Evicted KV: moved, or computed again? `python -m benchmarks.eviction [--quick] [--json FILE]`.

Answers to long prompts, of class BATCH, fill the pool; chats come in threes and take the memory away, again
and again. The same arrivals with and without swap, window by window in alternating order, from rest. Time
is a core's CPU time (`timeline`). Gates: what both arms did is recorded and done again on fresh pipelines
without suspension; every emission must be bit-equal. With and without swap the answers are the same, but
for near-ties.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.load import Arrival, Sizes, arrivals
from benchmarks.stats import machine, paired_ratio
from benchmarks.timeline import Outcome, Run
from pipelines.contract import Pipeline
from pipelines.loading import EMBEDDED
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from server.executor.device_process import settle
from server.executor.recording import Recording, differences
from server.executor.scheduler import Scheduler

ARMS = {"computed again": False, "moved": True}
LONG = Sizes(filler=20, long_tokens=100)
CHAT = Sizes(chat_tokens=24)
EVERY_S, TOGETHER = 0.3, 3


def pipelines(swap: bool) -> dict[str, Pipeline]:
    """The embedded text model with little memory. No drafts: their lengths follow the clock."""
    settings = TextSettings(kv_tokens=512, max_jobs=4096, swap=swap, drafters=(), prefix_reuse=False)
    folder = EMBEDDED / "upbeat-text"
    return {"upbeat-text": TextPipeline.load(folder, name="upbeat-text", settings=settings)}


def plan(models: dict[str, Pipeline], chats: int, seed: int) -> list[Arrival]:
    """Long prompts with long answers that are there from the start, and a chat every so often."""
    long = [0.0] * (chats // TOGETHER)
    behind = arrivals(models, long, seed, {"long": 1.0}, LONG)
    times = [EVERY_S * (1 + number // TOGETHER) for number in range(chats)]
    return [*behind, *arrivals(models, times, seed + 1, {"chat": 1.0}, CHAT)]


def window(models: dict[str, dict[str, Pipeline]], chats: int, number: int) -> dict[str, Outcome]:
    """Both arms; who begins alternates."""
    names = list(ARMS)[:: 1 if number % 2 else -1]
    found = {}
    for name in names:
        recorded = Recording()
        jobs = plan(models[name], chats, 10 * number)
        found[name] = Run(models[name], Scheduler, jobs, recorded, scope=f"{number} {name}").go()
        wrong = differences(recorded.events, pipelines(ARMS[name]))
        if wrong:
            sys.exit(f"replay: {wrong} emissions differ ({name})")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer chats and windows")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        models = {name: pipelines(swap) for name, swap in ARMS.items()}
        settle()
        for each in models.values():
            Run(each, Scheduler, plan(each, 12, 7)).go()
        chats, count = (24, 4) if options.quick else (60, 10)
        windows = [window(models, chats, number) for number in range(1, count + 1)]
    rows = {name: _row([found[name] for found in windows]) for name in ARMS}
    spent = [[found[name].busy_s for found in windows] for name in ARMS]
    ratio, low, high = paired_ratio(*spent)
    for key in rows["moved"]:
        print(f"{key:24}" + "".join(f"{name:>16} {rows[name][key]:10.2f}" for name in ARMS))
    print(f"device time, computed again over moved: {ratio:.2f} [{low:.2f}, {high:.2f}]")
    if options.json:
        body = {"name": "eviction", "hardware": machine(), "command": machine()["command"]}
        body |= {"baseline": rows["computed again"], "upbeat": rows["moved"]}
        body["ratios"] = {"device time": ratio, "device time, 95 % interval": [low, high]}
        options.json.write_text(json.dumps(body, indent=1) + "\n")


def _row(windows: list[Outcome]) -> dict[str, float]:
    streams = [stream for window in windows for stream in window.streams.values()]
    totals = {kind: [s.total_ms for s in streams if s.kind == kind] for kind in ("long", "chat")}
    return {
        "evictions": float(sum(window.evictions for window in windows)),
        "of these moved": float(sum(window.swaps for window in windows)),
        "device_s": sum(window.busy_s for window in windows),
        "long_completion_mean_ms": sum(totals["long"]) / len(totals["long"]),
        "chat_completion_mean_ms": sum(totals["chat"]) / len(totals["chat"]),
        "longest_gap_ms": max(window.longest_gap_ms for window in windows),
    }


if __name__ == "__main__":
    main()
