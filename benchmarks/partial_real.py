"""Partial prompts over gRPC, a real server, in real time, for `benchmarks.partial_prompt`."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from pathlib import Path

from upbeat.v1.types_pb2 import ServiceOptions

from benchmarks.partial_arms import Keep, Row
from benchmarks.partial_cases import Case, problems
from benchmarks.stats import paired_ratio, percentile
from clients.client import PartialPrompts, Upbeat
from clients.edits import Edit, EditScript, replay, typed
from clients.events import Done, Token
from clients.launch import running_server

ARMS: dict[str, PartialPrompts] = {
    "cold": "off", "warm": "off", "prefill": "prefill", "answer ahead": "answer_ahead"
}  # fmt: skip
Times = tuple[float, float]


async def real_section(count: int, keep: Keep) -> None:
    """Word problems at 600 characters a minute; every run has a cache scope of its own. `keep` is given what
    is known after each of them."""
    found: dict[str, list[Times]] = {arm: [] for arm in ARMS}
    scopes = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            running_server(("--listen", "127.0.0.1:0"), Path(folder) / "log") as address,
            Upbeat(address) as client,
        ):
            await _talk(client, "answer ahead", problems(1)[0], "first")
            for case in problems(count):
                for arm, times in found.items():
                    times.append(await _talk(client, arm, case, str(next(scopes))))
                keep("real time", told(found))
    print(f"\nover gRPC in real time, p50: {json.dumps(told(found), indent=1)}")


def told(found: dict[str, list[Times]]) -> Row:
    """Medians, and how many times sooner than from cold."""
    row: Row = {"prompts": len(found["cold"]), "arms": {}, "against": {}}
    for arm, times in found.items():
        for place, metric in enumerate(("first_token_ms", "last_token_ms")):
            values = [time[place] for time in times]
            row["arms"].setdefault(arm, {})[metric] = percentile(values, 0.5)
            if arm != "cold":
                ratio = paired_ratio([time[place] for time in found["cold"]], values)
                row["against"].setdefault(f"cold, {arm}", {})[metric] = dict(
                    zip(("ratio", "low", "high"), ratio, strict=True)
                )
    return row


async def _talk(client: Upbeat, arm: str, case: Case, scope: str) -> Times:
    """Milliseconds from the commit to the first and to the last token."""
    whole = EditScript((Edit(0.0, 0, case.text),))
    if arm == "warm":
        await _talk(client, "cold", case, scope)
    script = whole if ARMS[arm] == "off" else typed(case.text, 600)
    service = ServiceOptions(cache_scope=scope)
    async with client.converse(partial_prompts=ARMS[arm], service=service) as talk:
        await replay(talk, script)
        committed_s, first_s, last_s = time.perf_counter(), 0.0, 0.0
        async for event in talk:
            if isinstance(event, Token):
                last_s = time.perf_counter()
                first_s = first_s or last_s
            if isinstance(event, Done):
                break
    return 1000 * (first_s - committed_s), 1000 * (last_s - committed_s)
