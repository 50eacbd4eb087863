"""What the policy promises to those behind: `python -m benchmarks.sharing [--quick] [--json FILE]`.

Floors: a flood of REALTIME images that never ends, with work of the other classes waiting; each of them has
to get its floor share of what the others use (it is earned first, so that a short run shows a little less).
Tenants: one tenant asks for jobs that need about a third of the device, another one has asked for hundreds
of the same kind before; the first may be slowed by less than 10 %. Decisions: what runs next, its plan
included, among 10,000 queued jobs. Embedded models; time is a core's CPU time (`timeline`). A gate comes
first: a short flood is recorded and done again on fresh pipelines without suspension, equal to the bit.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.decisions import decisions
from benchmarks.gate import replayed
from benchmarks.load import Arrival, Sizes, arrivals
from benchmarks.stats import machine, percentile
from benchmarks.timeline import Outcome, Run
from pipelines.contract import Pipeline
from pipelines.loading import LoadPlan, load_all
from pipelines.messages import JobClass
from server.executor.accounts import FLOORS
from server.executor.device_process import settle
from server.executor.recording import Recording
from server.executor.scheduler import Scheduler

KINDS = {"voice": JobClass.REALTIME, "chat": JobClass.INTERACTIVE, "image": JobClass.STANDARD}
KINDS |= {"long": JobClass.BATCH}
TOLERATED = 1.1
KEPT_SHARE = 0.8
FLOOD = 200
# Chats take a few milliseconds each: so many a second that some always wait.
CHATS_A_SECOND = 25
MODEST = "modest"
PLAN = LoadPlan(transcription=False, max_jobs=4096)


def gate(pipelines: dict[str, Pipeline]) -> int:
    """Replay equality of a short flood on pipelines that have done nothing yet; the suspensions."""
    recorded = Recording()
    floors(pipelines, 4.0, recorded)
    return replayed(recorded, load_all(PLAN))


def floors(
    pipelines: dict[str, Pipeline], seconds: float, recording: Recording | None = None
) -> dict[str, float]:
    """Each class's share of the device under a flood of REALTIME images."""
    flood = [
        replace(each, job_class=JobClass.REALTIME) for each in _at_once(pipelines, "image", 3 * FLOOD, 1)
    ]
    spoken = [replace(each, job_class=JobClass.STANDARD) for each in _at_once(pipelines, "voice", FLOOD, 2)]
    chats = arrivals(
        pipelines,
        [number / CHATS_A_SECOND for number in range(round(CHATS_A_SECOND * seconds))],
        3,
        {"chat": 1.0},
        Sizes(),
    )
    plan = [*flood, *spoken, *_at_once(pipelines, "long", FLOOD, 4), *chats]
    found = Run(pipelines, Scheduler, plan, recording, scope="floors", until_s=seconds).go()
    waiting = {stream.kind for stream in found.streams.values() if stream.done_s == math.inf}
    if missing := {each.kind for each in plan} - waiting:
        raise RuntimeError(f"nothing was left to do of {', '.join(sorted(missing))}: no floor was tried")
    whole = sum(found.seen.used_ms.values())
    return {JobClass(number).name: ms / whole for number, ms in found.seen.used_ms.items()}


def tenant(pipelines: dict[str, Pipeline], kind: str, jobs: int) -> dict[str, float]:
    """How much longer a tenant's series of jobs takes beside another's flood: all of them, and each."""
    own = _at_once(pipelines, kind, jobs, 5)
    apart = [replace(each, at_s=5.0 * number) for number, each in enumerate(own)]
    cost_s = Run(pipelines, Scheduler, apart, scope=f"{kind} cost").go().busy_s / jobs
    series = [
        replace(each, at_s=number * 3 * cost_s, tenant=MODEST, kind=MODEST) for number, each in enumerate(own)
    ]
    flood = [replace(each, tenant="flood") for each in _at_once(pipelines, kind, 3 * jobs, 6)]
    plan = sorted([*series, *flood], key=lambda each: each.at_s)
    alone = _spans(Run(pipelines, Scheduler, series, scope=f"{kind} alone").go())
    beside = _spans(Run(pipelines, Scheduler, plan, scope=f"{kind} beside").go())
    return {"series": beside[0] / alone[0], "each": beside[1] / alone[1], "refused": beside[2]}


def _spans(outcome: Outcome) -> tuple[float, float, float]:
    """Of the modest tenant's jobs: seconds from the first arrival to the last end, and from arrival to end in
    the mean; how many were refused."""
    streams = [stream for stream in outcome.streams.values() if stream.kind == MODEST]
    served = [stream for stream in streams if not stream.refused]
    totals = [stream.total_ms / 1000 for stream in served]
    whole = max(stream.done_s for stream in served) - min(stream.at_s for stream in streams)
    return whole, sum(totals) / len(totals), float(len(streams) - len(served))


def _at_once(pipelines: dict[str, Pipeline], kind: str, count: int, seed: int) -> list[Arrival]:
    return arrivals(pipelines, [0.0] * count, seed, {kind: 1.0}, Sizes())


def main() -> None:
    """Command line; exit code 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a shorter flood and fewer jobs")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipelines = load_all(PLAN)
    settle()
    with torch.inference_mode():
        suspensions = gate(pipelines)
        warm = arrivals(pipelines, [0.0] * 24, 9, dict.fromkeys(KINDS, 0.25), Sizes())
        Run(pipelines, Scheduler, warm).go()
        shares = floors(pipelines, 12.0 if options.quick else 40.0)
        slowed = {kind: tenant(pipelines, kind, 24 if options.quick else 60) for kind in KINDS}
    spent = decisions(300)
    decided = {"p50_us": percentile(spent, 0.5) * 1e6, "p99_us": percentile(spent, 0.99) * 1e6}
    for job_class, floor in FLOORS.items():
        print(f"share of {job_class.name}: {shares[job_class.name]:.1%} (floor {floor:.0%})")
    for kind, ratios in slowed.items():
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        print(f"a tenant's {kind} jobs beside a flood: {told}")
    print(f"a decision among 10,000 jobs: {decided['p50_us']:.0f} us p50, {decided['p99_us']:.0f} us p99")
    if options.json:
        body = {"name": "sharing", "hardware": machine(), "command": machine()["command"]}
        found = {"shares": shares, "tenants": slowed, "decision": decided}
        found["replayed_suspensions"] = suspensions
        options.json.write_text(json.dumps(body | found, indent=1) + "\n")
    behind = (job_class for job_class in FLOORS if job_class is not JobClass.REALTIME)
    sys.exit(
        any(shares[job_class.name] < KEPT_SHARE * FLOORS[job_class] for job_class in behind)
        or any(ratios["series"] > TOLERATED for ratios in slowed.values())
    )


if __name__ == "__main__":
    main()
