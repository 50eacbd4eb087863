"""What working on a prompt before its commit gains: `python -m benchmarks.partial_prompt [--quick]`.

Every prompt is answered by the same server, models and settings in several arms, which alternate:
    cold      the full prompt at the commit, nothing cached
    warm      the same, the very same prompt having been answered before: its prefix is cached
    prefill, answer ahead, think ahead   the three modes, while the prompt is typed or spoken
The commit is sent with the last character. Sessions, executor and pipelines are the server's own, on one
thread and one torch thread, on a clock that skips idle time and counts that thread's processor time
(`benchmarks.virtual`); one section goes over gRPC in real time. Answers are greedy; those of cold, warm,
prefill and answer ahead must be equal, or the run fails.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import json
import sys
from pathlib import Path

import torch

from benchmarks.partial_arms import Keep, Row
from benchmarks.partial_crowd import accuracy_section, hostile_section
from benchmarks.partial_real import real_section
from benchmarks.partial_sections import SECTIONS
from benchmarks.stats import machine
from pipelines.contract import Pipeline
from pipelines.loading import EMBEDDED, LoadPlan, load_all
from pipelines.simultaneous.policies import DEFAULT
from server.executor.device_process import settle

QUICK, USUAL = 3, 12


def main() -> None:
    """Command line."""
    options = parsed()
    torch.set_num_threads(1)
    weights()
    prompts = options.prompts or (QUICK if options.quick else USUAL)
    sections: Row = {}

    def keep(name: str, row: Row) -> None:
        sections[name] = row
        if options.json:
            write(options.json, sections, prompts)

    if options.only == "real":
        asyncio.run(real_section(prompts, keep))
    else:
        pipelines = load_all(LoadPlan(transcription=False))
        settle()
        with torch.inference_mode():
            fill(keep, pipelines, options, prompts)
    if differing := [name for name, row in sections.items() if row.get("differ")]:
        sys.exit(f"answers differ from the full prompt's: {', '.join(differing)}")


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few prompts of each kind")
    parser.add_argument("--prompts", type=int, default=0, help="so many prompts of each kind")
    parser.add_argument(
        "--accuracy", type=int, default=0, help="so many word problems in three modes, and stop"
    )
    parser.add_argument(
        "--hostile", type=int, default=0, help="so many sessions beside a hostile one, and stop"
    )
    parser.add_argument("--rounds", type=int, default=6, help="of them, alone and beside it in turn")
    parser.add_argument("--only", choices=(*SECTIONS, "real"), default="text", help="which section")
    parser.add_argument("--json", type=Path, help="write the report there")
    return parser.parse_args()


def fill(keep: Keep, pipelines: dict[str, Pipeline], options: argparse.Namespace, prompts: int) -> None:
    """On the skipping clock. What is known is kept at once, so that a run cut short leaves its figures."""
    if options.accuracy:
        accuracy_section(pipelines, options.accuracy, keep)
    elif options.hostile:
        hostile_section(pipelines, options.hostile, options.rounds, keep)
    else:
        for name, row in SECTIONS[options.only](pipelines, prompts):
            keep(name, row)


@functools.cache
def weights() -> str:
    """Which ones they are, as they were when first asked."""
    path = EMBEDDED / "upbeat-text" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write(path: Path, sections: Row, prompts: int) -> None:
    """The sections with what they rest on."""
    row: Row = next((each for each in sections.values() if "against" in each), {"arms": {}, "against": {}})
    gains = row["against"].get("cold, answer ahead", {})
    settings = {"prompts": prompts, "threads": 1, "policy": DEFAULT}
    report = {
        "name": "partial_prompt",
        "hardware": machine(),
        "command": machine()["command"],
        "settings": settings | {"text weights, sha256": weights()},
        "baseline": row["arms"].get("cold", {}),
        "upbeat": row["arms"].get("answer ahead", {}),
        "ratios": {metric: each["ratio"] for metric, each in gains.items()},
        "sections": sections,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
