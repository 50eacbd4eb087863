"""What working on a prompt before its commit gains: `python -m benchmarks.partial_prompt [--quick]`.

Every prompt is answered by the same server, models and settings in several arms, which alternate:
    cold      the full prompt at the commit, nothing cached
    warm      the same, the very same prompt having been answered before: its prefix is cached
    prefill, answer ahead, think ahead   the three modes, while the prompt is typed or spoken
The commit is sent with the last character. Sessions, executor and pipelines are the server's own, on one
thread and one torch thread, on a clock that skips idle time (`benchmarks.virtual`); one section goes over
gRPC in real time. Answers are greedy; those of cold, prefill and answer ahead must be equal.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.partial_cases import (
    Case,
    bin_of,
    dialogues,
    long_prompt,
    problems,
    questions,
    random_model,
)
from benchmarks.stats import machine, paired_ratio, percentile
from benchmarks.virtual import Turn, Typists
from clients.client import Upbeat
from clients.edits import Edit, EditScript, replay, spoken, typed
from clients.events import Done, Token
from clients.launch import running_server
from pipelines.contract import Pipeline
from pipelines.loading import LoadPlan, load_all
from pipelines.messages import ImageRequest, ModelInfo, Sampling
from pipelines.simultaneous.policies import DEFAULT, policy
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from server.executor.device_process import settle
from server.plan import Ahead, Mode, Plan

AHEAD = {
    "prefill": Ahead(mode=Mode.PREFILL),
    "answer ahead": Ahead(mode=Mode.ANSWER_AHEAD, policy=policy(DEFAULT, "")),
    "think ahead": Ahead(mode=Mode.THINK_AHEAD, thoughts=True),
}
COLD = Ahead(mode=Mode.OFF)
ANSWER = Sampling(max_tokens=64)
METRICS = ("first_token_ms", "last_token_ms", "first_audio_ms", "image_ms")
Row = dict[str, Any]
Typed = Callable[[str], EditScript]


class Arms:
    """One server's sessions; every run has a tenant of its own, so that no cached prefix is shared."""

    def __init__(self, pipelines: dict[str, Pipeline], **plan: Any) -> None:
        self.typists = Typists(pipelines)
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
    check_equal(name, found)
    row: Row = {"prompts": len(cases), "arms": {arm: summary(turns) for arm, turns in found.items()}}
    row["against"] = {
        f"{base}, {arm}": ratios(found[base], found[arm])
        for base in ("cold", "warm")
        for arm in which
        if base in which and arm in AHEAD
    }
    show(name, row)
    return row


def check_equal(name: str, found: dict[str, list[Turn]]) -> None:
    """The determinism contract: what is said does not depend on what was done before the commit."""
    for arm in ("warm", "prefill", "answer ahead"):
        for ours, cold in zip(found.get(arm, []), found["cold"], strict=False):
            assert ours.text == cold.text, f"{name}: {arm} says {ours.text!r}, the full prompt {cold.text!r}"


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


# --- sections --------------------------------------------------------------------------------------------


def typing(speed: float, rate: float) -> Typed:
    return lambda text: typed(text, speed, rate, seed=3)


def speaking(rate: float) -> Typed:
    return lambda text: spoken(text, 160.0, rate, seed=3)


def text_sections(pipelines: dict[str, Pipeline], quick: bool) -> Row:
    """Questions, word problems and dialogues at the embedded model."""
    arms, found = Arms(pipelines), Row()
    every = ("cold", "warm", "prefill", "answer ahead", "think ahead")
    pair = ("cold", "answer ahead")
    count = 3 if quick else 24
    asked = questions(count) or problems(count)
    arms.run(asked[0], typed(asked[0].text, 600), every)
    found["questions, 240 a minute"] = section("questions, 240 a minute", arms, asked, typing(240, 0), every)
    found["word problems, 240 a minute"] = section(
        "word problems, 240 a minute", arms, problems(count), typing(240, 0), every
    )
    found["dialogue turns, 240 a minute"] = section(
        "dialogue turns, 240 a minute", arms, dialogues(count), typing(240, 0), pair
    )
    few = problems(3 if quick else 16)
    for speed, rate in (
        [(600, 0.2)] if quick else [(120, 0.0), (600, 0.0), (240, 0.05), (240, 0.2), (600, 0.2)]
    ):
        name = f"word problems, {speed} a minute, {rate:.0%} of the words revised"
        found[name] = section(name, arms, few, typing(speed, rate), pair)
    for rate in (0.05,) if quick else (0.0, 0.05, 0.2):
        name = f"word problems, spoken, {rate:.0%} of the words revised"
        found[name] = section(name, arms, few, speaking(rate), pair)
    return found


def by_length(pipelines: dict[str, Pipeline], count: int) -> Row:
    """Questions of the shared data by their number of sentences."""
    arms = Arms(pipelines)
    groups: dict[str, list[Case]] = {}
    for case in questions(count):
        groups.setdefault(bin_of(case.sentences), []).append(case)
    which = ("cold", "warm", "answer ahead", "think ahead")
    return {
        name: section(f"questions of {name} sentences", arms, group, typing(240, 0), which)
        for name, group in sorted(groups.items())
    }


def long_sections(quick: bool) -> Row:
    """Long prompts at the random model."""
    with tempfile.TemporaryDirectory() as folder:
        settings = TextSettings(kv_tokens=32_768)
        pipeline = TextPipeline.load(random_model(Path(folder) / "random"), name="random", settings=settings)
    arms = Arms({"random": pipeline}, sampling=Sampling(max_tokens=16 if quick else 32))
    which = ("cold", "warm", "answer ahead")
    found = Row()
    arms.run(long_prompt(5, 99), typed(long_prompt(5, 99).text, 600), which)
    for sentences in (20, 200) if quick else (5, 20, 50, 100, 200):
        cases = [long_prompt(sentences, seed) for seed in range(1 if quick else 3)]
        name = f"{sentences} sentences"
        found[name] = section(name, arms, cases, typing(600, 0), which)
    return found


def media_section(pipelines: dict[str, Pipeline], quick: bool) -> Row:
    """First audio and image: the voice speaks the answer, the image is the user's words."""
    infos: dict[str, ModelInfo] = {}
    for pipeline in pipelines.values():
        infos.setdefault(pipeline.info.modality, pipeline.info)
    found = Row()
    which = ("cold", "prefill", "answer ahead")
    voice = Arms(pipelines, text=infos["text"], speech=infos["speech"])
    cases = problems(2 if quick else 16)
    voice.run(cases[0], typed(cases[0].text, 600), which)
    found["spoken answers"] = section("spoken answers", voice, cases, typing(240, 0), which)
    scenes = [Case(f"Draw {what}.", 1) for what in ("a red star", "two blue rings", "a green boat on water")]
    drawing = ImageRequest("", steps=8, preview_every=4)
    image = Arms(pipelines, text=infos["text"], image=infos["image"], drawing=drawing)
    found["images"] = section("images", image, scenes[: 1 if quick else 3], slowly_ended, which)
    return found


def slowly_ended(text: str) -> EditScript:
    """Typed, and committed after a second: an image is begun ahead of the whole prompt only."""
    script = typed(text, 240)
    return EditScript((*script.edits, Edit(script.end_ms + 1000.0, len(text), "")))


def hostile_section(pipelines: dict[str, Pipeline], sessions: int) -> Row:
    """So many sessions type at once, without and with one that rewrites its prompt each millisecond, while
    they type and commit: it grows to two fifths of the context, which it keeps, then to the most a prompt may
    have, and then is silent. In processor time of the one thread, the arms in turn."""
    arms = Arms(pipelines)
    cases = problems(sessions)
    info = next(pipeline.info for pipeline in pipelines.values() if pipeline.info.modality == "text")
    most = int(0.4 * info.context_tokens)
    growing = (Edit(float(ms), 0, f"{ms} " + "word " * min(1 + ms // 4, most)) for ms in range(14_000))
    flood = EditScript((*growing, Edit(14_001.0, 0, "word " * 30_000), Edit(30_000.0, 0, "Hi.")))
    found: dict[str, list[float]] = {}
    pair = [("alone", False), ("beside a hostile one", True)]
    for run, (name, hostile) in enumerate([*pair, *reversed(pair)] * 2):
        typists = Typists(pipelines, running=time.thread_time)
        wanted = [
            (arms.plan(AHEAD["answer ahead"], case, f"{run} {n}"), typed(case.text, 600), 0.05 * n)
            for n, case in enumerate(cases)
        ]
        if hostile:
            wanted.append((arms.plan(AHEAD["answer ahead"], cases[0], f"{run} hostile"), flood, 2.0))
        turns = typists.turns(wanted)[:sessions]
        found.setdefault(name, []).extend(turn.first_token_ms for turn in turns)
    row = {name: {"p50": percentile(v, 0.5), "p99": percentile(v, 0.99)} for name, v in found.items()}
    grows = row["beside a hostile one"]["p50"] / row["alone"]["p50"] - 1
    print(f"\n{sessions} sessions at once, first token p50 {row['alone']['p50']:.1f} ms alone, "
          f"{row['beside a hostile one']['p50']:.1f} beside a hostile one ({grows:+.0%})")  # fmt: skip
    return {"sessions": sessions, "first_token_ms": row, "growth": grows}


def accuracy_section(pipelines: dict[str, Pipeline], count: int) -> Row:
    """Word problems, 16 sessions at once: right answers with the full prompt and with both modes."""
    arms, cases = Arms(pipelines), problems(count)
    said: dict[str, list[str]] = {}
    for name, ahead in [("full prompt", COLD), *((n, AHEAD[n]) for n in ("answer ahead", "think ahead"))]:
        said[name] = []
        for start in range(0, count, 16):
            wanted = [
                (arms.plan(ahead, case, name), typed(case.text, 240), 0.1 * n)
                for n, case in enumerate(cases[start : start + 16])
            ]
            said[name] += [turn.text for turn in arms.typists.turns(wanted)]
    right = {
        name: [answered(text, case.expected) for text, case in zip(texts, cases, strict=True)]
        for name, texts in said.items()
    }
    differ = sum(a != b for a, b in zip(said["full prompt"], said["answer ahead"], strict=True))
    losses = [float(a) - float(b) for a, b in zip(right["full prompt"], right["think ahead"], strict=True)]
    mean = sum(losses) / count
    error = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / max(1, count - 1) / count)
    row = {
        "problems": count,
        "right": {name: sum(each) / count for name, each in right.items()},
        "answers that differ from the full prompt's, answer ahead": differ,
        "points lost by thinking ahead": 100 * mean,
        "one-sided 95 % bound": 100 * (mean + 1.645 * error),
    }
    print("\naccuracy:", json.dumps(row, indent=1))
    return row


def answered(text: str, expected: str) -> bool:
    """Whether the last number said is the expected one."""
    words = text.replace(".", " ").replace(",", "").split()
    numbers = [word for word in words if word.lstrip("-").isdigit()]
    return bool(numbers) and numbers[-1] == expected


async def real_section(count: int) -> Row:
    """Over gRPC, real server, real time, 600 characters a minute."""
    cases = problems(count)
    found: dict[str, list[tuple[float, float]]] = {"off": [], "answer_ahead": []}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            running_server(("--listen", "127.0.0.1:0"), Path(folder) / "log") as address,
            Upbeat(address) as client,
        ):
            for case in cases:
                for mode, times in found.items():
                    times.append(await _talk(client, mode, case))
    row = {
        mode: {
            "first_token_ms": percentile([t[0] for t in times], 0.5),
            "last_token_ms": percentile([t[1] for t in times], 0.5),
        }
        for mode, times in found.items()
    }
    print(f"\nover gRPC in real time, {count} prompts, p50: {json.dumps(row)}")
    return row


async def _talk(client: Upbeat, mode: Any, case: Case) -> tuple[float, float]:
    async with client.converse(partial_prompts=mode) as talk:
        await replay(talk, typed(case.text, 600))
        committed_s, first_s, last_s = time.perf_counter(), 0.0, 0.0
        async for event in talk:
            if isinstance(event, Token):
                last_s = time.perf_counter()
                first_s = first_s or last_s
            if isinstance(event, Done):
                break
    return 1000 * (first_s - committed_s), 1000 * (last_s - committed_s)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few prompts of each kind")
    parser.add_argument(
        "--accuracy", type=int, default=0, help="so many word problems in three modes, and stop"
    )
    parser.add_argument(
        "--hostile", type=int, default=0, help="so many sessions beside a hostile one, and stop"
    )
    parser.add_argument("--only", choices=("text", "length", "long", "media", "real"), default="")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipelines = load_all(LoadPlan(transcription=False))
    settle()
    sections: Row = {}
    with torch.inference_mode():
        if options.accuracy:
            sections["accuracy"] = accuracy_section(pipelines, options.accuracy)
        elif options.hostile:
            sections["hostile"] = hostile_section(pipelines, options.hostile)
        else:
            sections |= plain_sections(pipelines, options.quick, options.only)
    if not options.accuracy and not options.hostile and options.only in ("", "real"):
        sections["real time"] = asyncio.run(real_section(1 if options.quick else 4))
    if options.json:
        options.json.write_text(json.dumps(report(sections, options.quick), indent=1) + "\n")


def plain_sections(pipelines: dict[str, Pipeline], quick: bool, only: str) -> Row:
    """The sections on the skipping clock, or only one of them."""
    found = Row()
    if only in ("", "text"):
        found |= text_sections(pipelines, quick)
    if only == "length" or not (only or quick):
        found["by length"] = by_length(pipelines, 36)
    if only in ("", "long"):
        found["long"] = long_sections(quick)
    if only in ("", "media"):
        found["media"] = media_section(pipelines, quick)
    return found


def report(sections: Row, quick: bool) -> Row:
    """The sections with what they rest on."""
    main_row = sections.get("questions, 240 a minute", {"arms": {}, "against": {}})
    gains = main_row["against"].get("cold, answer ahead", {})
    return {
        "name": "partial_prompt",
        "hardware": machine(),
        "command": machine()["command"],
        "settings": {"quick": quick, "threads": 1, "policy": DEFAULT, "answer_tokens": ANSWER.max_tokens},
        "baseline": main_row["arms"].get("cold", {}),
        "upbeat": main_row["arms"].get("answer ahead", {}),
        "ratios": {metric: each["ratio"] for metric, each in gains.items()},
        "sections": sections,
    }


if __name__ == "__main__":
    main()
