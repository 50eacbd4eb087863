"""Figures of the preemption benchmark: what was kept of its runs, arm by arm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.fluidity import fluidity
from benchmarks.stats import paired_ratio, percentile
from benchmarks.timeline import Stream

FIRST_S = 0.3
BETWEEN_S = 0.03
URGENT = {"voice": "audio", "chat": "token"}
OURS = "at layers and blocks"
Kept = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """Names with their unit to numbers."""

    values: dict[str, float]


def streams(kept: Kept, arm: str, kind: str) -> list[Stream]:
    """Of all windows, in order of arrival, the refused ones too."""
    found: list[Stream] = []
    for window in kept["windows"]:
        made = window[arm]["streams"]
        found += [_stream(made[key]) for key in sorted(made, key=int) if made[key]["kind"] == kind]
    return found


def _stream(raw: dict[str, Any]) -> Stream:
    chunks = [(when, held) for when, held in raw["chunks"]]
    return Stream(raw["kind"], raw["at_s"], chunks, raw["done_s"], raw["refused"])


def served(kept: Kept, arm: str, kind: str) -> list[Stream]:
    """Those that were not refused."""
    return [stream for stream in streams(kept, arm, kind) if not stream.refused]


def alone(kept: Kept, kind: str) -> list[Stream]:
    """Unloaded."""
    return [_stream(raw) for raw in kept["alone"].get(kind, ())]


def figures(kept: Kept) -> dict[str, ArmFigures]:
    """One row an arm."""
    return {arm: ArmFigures(dict(_row(kept, arm))) for arm in sorted(kept["windows"][0], key=_place)}


def _place(arm: str) -> int:
    from benchmarks.arms import ARMS

    return list(ARMS).index(arm)


def _row(kept: Kept, arm: str) -> Iterator[tuple[str, float]]:
    for kind, what in URGENT.items():
        found = served(kept, arm, kind)
        if found:
            yield from _urgent(found, alone(kept, kind), what)
            yield f"{kind}_refused", float(len(streams(kept, arm, kind)) - len(found))
    for kind in ("image", "long"):
        totals = [stream.total_ms for stream in served(kept, arm, kind)]
        if totals:
            yield f"{kind}_completion_mean_ms", sum(totals) / len(totals)
            yield f"{kind}_completion_p99_ms", percentile(totals, 0.99)
    windows = [window[arm] for window in kept["windows"]]
    yield "busy_s", sum(window["busy_s"] for window in windows)
    yield "busy_share", sum(w["busy_s"] for w in windows) / sum(w["last_arrival_s"] for w in windows)
    delays = [delay for window in windows for delay in window["seen"]["delays_ms"]]
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield f"preemption_delay_{name}_ms", percentile(delays, share)
    yield "preemptions", float(sum(window["preemptions"] for window in windows))
    yield "background_done_while_arriving", float(sum(_background_done(window) for window in windows))


def _urgent(found: list[Stream], unloaded: list[Stream], what: str) -> Iterator[tuple[str, float]]:
    first = [stream.first_ms for stream in found]
    yield f"{what}_first_p50_ms", percentile(first, 0.5)
    yield f"{what}_first_p99_ms", percentile(first, 0.99)
    yield f"{what}_first_mean_ms", sum(first) / len(first)
    yield f"{what}_unloaded_p99_ms", percentile([stream.first_ms for stream in unloaded], 0.99)
    yield f"{what}_fluidity", sum(_fluidity(stream, unloaded) for stream in found) / len(found)
    if what == "audio":
        dry = [stream.dry_s() * 1000 for stream in found]
        yield "audio_underruns", float(sum(ms > 1.0 for ms in dry))
        yield "audio_dry_p99_ms", percentile(dry, 0.99)
    else:
        gaps = [gap * 1000 for stream in found for gap, _ in stream.gaps()]
        yield f"{what}_gap_p99_ms", percentile(gaps, 0.99)


def _fluidity(stream: Stream, unloaded: list[Stream]) -> float:
    """Allowed: 0.3 s beyond the unloaded first output, then 30 ms a token, or the audio that is playing."""
    allowed = FIRST_S + percentile([each.first_ms for each in unloaded], 0.5) / 1000
    later = [
        (gap, held if stream.kind == "voice" else BETWEEN_S * max(1.0, held)) for gap, held in stream.gaps()
    ]
    between_s = stream.chunks[0][1] if stream.kind == "voice" else BETWEEN_S
    return fluidity([(stream.first_ms / 1000, allowed), *later], between_s)


def _background_done(window: dict[str, Any]) -> int:
    made = window["streams"].values()
    until_s = window["last_arrival_s"]
    done = (raw for raw in made if not raw["refused"] and raw["done_s"] <= until_s)
    return sum(raw["kind"] in ("image", "long") for raw in done)


def cost_errors(kept: Kept) -> dict[str, float]:
    """Median relative error of the last arm's predictions, by pipeline and kind of slice."""
    windows = [window[OURS]["cost_error"] for window in kept["windows"]]
    return {name: percentile([w[name] for w in windows if name in w], 0.5) for name in windows[0]}


def spent(kept: Kept) -> dict[str, dict[str, dict[str, float]]]:
    """Where the device's time went, by arm and kind of slice: seconds, slices, rows a slice."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for arm in sorted(kept["windows"][0], key=_place):
        whole: dict[str, list[float]] = {}
        for window in kept["windows"]:
            for kind, one in window[arm]["spent"].items():
                sums = whole.setdefault(kind, [0.0, 0.0, 0.0])
                for at, value in enumerate((one["ms"] / 1000, one["slices"], one["rows"])):
                    sums[at] += value
        found[arm] = {
            kind: {"s": seconds, "slices": slices, "rows_a_slice": rows / slices}
            for kind, (seconds, slices, rows) in sorted(whole.items())
        }
    return found


def ratios(kept: Kept, rows: dict[str, ArmFigures]) -> dict[str, object]:
    """Above 1 where the last arm is better; means are paired by arrival, with 95 % intervals."""
    found: dict[str, object] = {}
    ours = rows[OURS].values
    for arm, row in rows.items():
        if arm == OURS:
            continue
        for kind, what in URGENT.items():
            if f"{what}_first_p99_ms" not in ours:
                continue
            ratio, low, high = paired_ratio(*_pairs(kept, arm, kind))
            found[f"first {what}, mean, against {arm}"] = ratio
            found[f"first {what}, mean, against {arm}, 95 % interval"] = [low, high]
            found[f"first {what}, p99, against {arm}"] = _over(row.values, ours, f"{what}_first_p99_ms")
            found[f"wait for the first {what}, p50, against {arm}"] = _waits(
                row.values, ours, kept, kind, what
            )
        found[f"work a device second, against {arm}"] = _over(row.values, ours, "busy_s")
        found[f"background done while arriving, against {arm}"] = _over(
            ours, row.values, "background_done_while_arriving"
        )
        found[f"preemption delay, p99, against {arm}"] = _over(row.values, ours, "preemption_delay_p99_ms")
    return found | _shares(rows)


def _pairs(kept: Kept, arm: str, kind: str) -> tuple[list[float], list[float]]:
    """First outputs of the arm and of ours, where neither refused the job."""
    both = zip(streams(kept, arm, kind), streams(kept, OURS, kind), strict=True)
    pairs = [(theirs, mine) for theirs, mine in both if not (theirs.refused or mine.refused)]
    return [theirs.first_ms for theirs, _ in pairs], [mine.first_ms for _, mine in pairs]


def _over(theirs: dict[str, float], ours: dict[str, float], name: str) -> float:
    return theirs[name] / max(0.1, ours[name])


def _waits(theirs: dict[str, float], ours: dict[str, float], kept: Kept, kind: str, what: str) -> float:
    """Of what the load adds to the unloaded median."""
    base = percentile([stream.first_ms for stream in alone(kept, kind)], 0.5)
    name = f"{what}_first_p50_ms"
    return (theirs[name] - base) / max(0.1, ours[name] - base)


def _shares(rows: dict[str, ArmFigures]) -> dict[str, object]:
    """How much of the p99 that the last arm takes from the first each step takes, by class."""
    found: dict[str, object] = {}
    names = list(rows)
    for what in URGENT.values():
        key = f"{what}_first_p99_ms"
        if key not in rows[OURS].values:
            continue
        whole = rows[names[0]].values[key] - rows[OURS].values[key]
        for before, after in pairwise(names):
            share = (rows[before].values[key] - rows[after].values[key]) / whole
            found[f"share of the gain in the p99 of first {what}: {after}"] = share
    return found


def print_rows(kept: Kept, rows: dict[str, ArmFigures]) -> None:
    """A table: one column an arm."""
    names = list(rows)
    print(f"{'':34}" + "".join(f"{name:>27}" for name in names))
    for key in rows[OURS].values:
        print(f"{key:34}" + "".join(f"{rows[name].values[key]:27.3f}" for name in names))
    for arm, kinds in spent(kept).items():
        most = sorted(kinds, key=lambda kind: -kinds[kind]["s"])[:5]
        told = (f"{kind} {kinds[kind]['s']:.2f} s x{kinds[kind]['rows_a_slice']:.1f}" for kind in most)
        print(f"{arm}: {', '.join(told)}")
    for name, value in ratios(kept, rows).items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"  {name}: {value}")
