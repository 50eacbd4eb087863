"""One prompt in several arms, and what a section of `benchmarks.partial_prompt` says of them."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.partial_cases import Case
from benchmarks.stats import paired_ratio, percentile
from benchmarks.virtual import Turn, Typists
from clients.edits import Edit, EditScript
from pipelines.contract import Pipeline
from pipelines.messages import Sampling
from pipelines.simultaneous.policies import DEFAULT, policy
from server.plan import Ahead, Mode, Plan

AHEAD = {
    "prefill": Ahead(mode=Mode.PREFILL),
    "answer ahead": Ahead(mode=Mode.ANSWER_AHEAD, policy=policy(DEFAULT, "")),
    "think ahead": Ahead(mode=Mode.THINK_AHEAD, thoughts=True),
}
COLD = Ahead(mode=Mode.OFF)
EXACT = ("warm", "prefill", "answer ahead")
ANSWER = Sampling(max_tokens=64)
METRICS = ("first_token_ms", "last_token_ms", "first_audio_ms", "image_ms")
Row = dict[str, Any]
Keep = Callable[[str, Row], None]
Typed = Callable[[str], EditScript]


class Arms:
    """One server's sessions; every run has a tenant of its own, so that no cached prefix is shared."""

    def __init__(self, pipelines: dict[str, Pipeline], **plan: Any) -> None:
        self.typists = Typists(pipelines, running=time.thread_time)
        self._infos = {pipeline.info.modality: pipeline.info for pipeline in pipelines.values()}
        self._plan = plan
        self._tenants = itertools.count()

    def run(self, case: Case, script: EditScript, arms: Iterable[str]) -> dict[str, Turn]:
        """The case in each arm."""
        return {arm: self._one(arm, case, script) for arm in arms}

    def plan(self, ahead: Ahead, case: Case, tenant: str) -> Plan:
        usual: dict[str, Any] = {"sampling": ANSWER, "text": self._infos["text"], "history": case.history}
        options = usual | self._plan
        return Plan(tenant=tenant, ahead=ahead, **options)

    def _one(self, arm: str, case: Case, script: EditScript) -> Turn:
        tenant = f"tenant {next(self._tenants)}"
        whole = EditScript((Edit(0.0, 0, case.text),))
        if arm in AHEAD:
            return self.typists.turn(self.plan(AHEAD[arm], case, tenant), script)
        if arm == "warm":
            self.typists.turn(self.plan(COLD, case, tenant), whole)
        return self.typists.turn(self.plan(COLD, case, tenant), whole)


def section(name: str, arms: Arms, cases: list[Case], how: Typed, which: tuple[str, ...]) -> Row:
    """All cases in the arms, the order of the arms turning; prints and returns its table."""
    found: dict[str, list[Turn]] = {arm: [] for arm in which}
    for number, case in enumerate(cases):
        turning = which[number % len(which) :] + which[: number % len(which)]
        for arm, turn in arms.run(case, how(case.text), turning).items():
            found[arm].append(turn)
    row: Row = {"prompts": len(cases), "arms": {arm: summary(turns) for arm, turns in found.items()}}
    row["differ"] = differing(found)
    row["against"] = {
        f"{base}, {arm}": ratios(found[base], found[arm])
        for base in ("cold", "warm")
        for arm in which
        if base in which and arm in AHEAD
    }
    show(name, row)
    return row


def differing(found: dict[str, list[Turn]]) -> list[str]:
    """What breaks the determinism contract: answers do not depend on what was done before the commit."""
    return [
        f"{arm}, prompt {place}: {ours.text!r}, the full prompt {cold.text!r}"
        for arm in EXACT
        for place, (ours, cold) in enumerate(zip(found.get(arm, []), found["cold"], strict=False))
        if ours.text != cold.text
    ]


def summary(turns: list[Turn]) -> Row:
    """Medians of the times, means of the work."""
    row: Row = {}
    for metric in METRICS:
        values = [value for turn in turns if not math.isnan(value := getattr(turn, metric))]
        if values:
            row[metric] = {"p50": percentile(values, 0.5), "p90": percentile(values, 0.9)}
    said = sum(turn.usage.completion_tokens for turn in turns)
    row["tokens"] = said / len(turns)
    row["accepted_share"] = sum(turn.usage.accepted_tokens for turn in turns) / max(1, said)
    row["wasted_tokens"] = sum(turn.usage.wasted_tokens for turn in turns) / len(turns)
    row["slices"] = sum(turn.slices for turn in turns) / len(turns)
    row["slices_after_commit"] = sum(turn.passes for turn in turns) / len(turns)
    row["reused_share"] = sum(turn.usage.reused_tokens for turn in turns) / max(
        1, sum(turn.usage.prompt_tokens for turn in turns)
    )
    return row


def ratios(base: list[Turn], ours: list[Turn]) -> Row:
    """How many times sooner, with the 95 % interval over prompts."""
    found: Row = {}
    for metric in METRICS:
        pairs = [
            (before, after)
            for one, two in zip(base, ours, strict=True)
            if not math.isnan(before := getattr(one, metric))
            and not math.isnan(after := getattr(two, metric))
        ]
        if pairs:
            found[metric] = dict(
                zip(("ratio", "low", "high"), paired_ratio(*zip(*pairs, strict=True)), strict=True)
            )
    return found


def show(name: str, row: Row) -> None:
    print(f"\n{name}: {row['prompts']} prompts")
    print(f"{'':14}{'first token':>12}{'last token':>12}{'audio':>8}{'image':>8}{'accepted':>10}{'wasted':>8}"
          f"{'passes':>8}{'of these':>9}")  # fmt: skip
    for arm, each in row["arms"].items():
        times = [each.get(metric, {}).get("p50", math.nan) for metric in METRICS]
        print(f"{arm:14}{times[0]:12.1f}{times[1]:12.1f}{times[2]:8.0f}{times[3]:8.0f}"
              f"{each['accepted_share']:10.2f}{each['wasted_tokens']:8.1f}{each['slices']:8.1f}"
              f"{each['slices_after_commit']:9.1f}")  # fmt: skip
    for pair, metrics in row["against"].items():
        told = (
            f"{m.removesuffix('_ms')} {r['ratio']:.1f} [{r['low']:.1f}, {r['high']:.1f}]"
            for m, r in metrics.items()
        )
        print(f"  against {pair}: {'; '.join(told)}")
    for each in row["differ"]:
        print(f"  DIFFERS: {each}")
