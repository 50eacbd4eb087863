"""Text decoding beside other engines: `python -m benchmarks.text_engine [--quick] [--json FILE]`.

The same weights and prompts for all, in one process (CTranslate2: in one of its own, with
`--ctranslate2 PYTHONPATH`), alternating; greedy, without end token, speculation off. Cases: equal lengths at
batch 1, 8 and 32, and 32 asks that arrive as in the Azure conversation trace, squeezed in time so that the
engines are busy. Then how long running streams stand still when a long prompt lands.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.stats import machine, paired_ratio, percentile
from benchmarks.text_arms import Ask, ContinuousBatching, Engine, Generate, Ours, Told
from benchmarks.text_folders import NAMES, make
from training.data import data_dir

PROMPT, TOKENS = 64, 48
# By model: its context, and the prompt that lands beside running streams.
CONTEXTS = {"42M": (9_216, 8_192)}
RAGGED, LONGEST_PROMPT, LONGEST_ANSWER = 32, 384, 64
VOCABULARY = 4096
OURS, EAGER, COMPILED, CONTINUOUS, CT2 = (
    "upbeat",
    "transformers eager",
    "transformers compiled, static cache",
    "transformers continuous batching",
    "ctranslate2",
)


@dataclass(frozen=True, slots=True)
class Case:
    """Asks under a name; slow: engines that are left out of it, since they would take minutes (each shape is
    compiled anew; continuous batching of transformers on a CPU)."""

    name: str
    asks: tuple[Ask, ...]
    slow: tuple[str, ...] = ()


def equal(batch: int) -> Case:
    """`batch` prompts of one length, all there at the start."""
    draw = random.Random(batch)
    asks = tuple(Ask(_prompt(draw, PROMPT), TOKENS) for _ in range(batch))
    slow = {1: (CONTINUOUS,), 8: ()}.get(batch, (CONTINUOUS, COMPILED))
    return Case(f"batch {batch}", asks, slow)


def ragged(span_s: float) -> Case:
    """Arrivals, prompt and answer lengths of the Azure trace (of a made one where the data is absent)."""
    draw = random.Random(0)
    rows = _azure() or [
        (number * 0.7, draw.randint(20, 900), draw.randint(5, 200)) for number in range(RAGGED)
    ]
    last = rows[-1][0] or 1.0
    asks = tuple(
        Ask(
            _prompt(draw, max(4, min(prompt // 4, LONGEST_PROMPT))),
            max(2, min(answer // 2, LONGEST_ANSWER)),
            at * span_s / last,
        )
        for at, prompt, answer in rows
    )
    return Case(f"ragged {RAGGED}", asks, (CONTINUOUS, COMPILED, CT2))


def _azure() -> list[tuple[float, int, int]]:
    """Seconds after the first, prompt and answer tokens of the first arrivals."""
    data = data_dir()
    path = data / "traces" / "azure2023_conv.csv" if data else None
    if path is None or not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        rows = [row for row, _ in zip(csv.DictReader(lines), range(RAGGED), strict=False)]
    clock = [row["TIMESTAMP"].split()[1].split(":") for row in rows]
    seconds = [3600 * int(h) + 60 * int(m) + float(s) for h, m, s in clock]
    return [
        (at - seconds[0], int(row["ContextTokens"]), int(row["GeneratedTokens"]))
        for at, row in zip(seconds, rows, strict=True)
    ]


def _prompt(draw: random.Random, length: int) -> tuple[int, ...]:
    return tuple(draw.randrange(10, VOCABULARY) for _ in range(length))


def summary(asks: Sequence[Ask], runs: Sequence[Told]) -> dict[str, float]:
    """Over all runs: milliseconds to the first token, gaps between tokens, and tokens a second."""
    first = [1000 * (row[0] - ask.at_s) for run in runs for row, ask in zip(run.times, asks, strict=True)]
    gaps = [1000 * (b - a) for run in runs for row in run.times for a, b in pairwise(row)]
    tokens = sum(ask.tokens for ask in asks)
    return {
        "tokens_a_second": tokens * len(runs) / sum(run.seconds for run in runs),
        "first_token_p50_ms": percentile(first, 0.5),
        "gap_p50_ms": percentile(gaps, 0.5),
        "gap_p99_ms": percentile(gaps, 0.99),
    }


def compare(case: Case, engines: dict[str, Engine], rounds: int) -> dict[str, Any]:
    """All engines in turn, once to warm up and then `rounds` times; ratios of run times, theirs over ours."""
    runs: dict[str, list[Told]] = {name: [] for name in engines}
    left_out: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            if name in left_out:
                continue
            try:
                told = engine(case.asks)
            except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
                left_out[name] = f"{type(error).__name__}: {error}"[:200]
                continue
            if number:
                runs[name].append(told)
    ours = [run.seconds for run in runs[OURS]]
    done = {name: found for name, found in runs.items() if name not in left_out}
    return {
        "engines": {name: summary(case.asks, found) for name, found in done.items()},
        "ratios": {
            name: paired_ratio([run.seconds for run in found], ours)
            for name, found in done.items()
            if name != OURS
        },
        "left_out": left_out,
    }


def _without(engines: dict[str, Engine], names: Sequence[str]) -> dict[str, Engine]:
    return {name: engine for name, engine in engines.items() if name not in names}


def long_prompt(folder: Path, dtype: str, length: int, *, chunked: bool) -> float:
    """The longest gap, ms, of four streams while a prompt of `length` tokens lands. A shorter one has landed
    before, so that costs are known."""
    draw = random.Random(4)
    ours = Ours(folder, dtype, chunked=chunked)
    asks = [Ask(_prompt(draw, 32), 120) for _ in range(4)]
    ours([*asks, Ask(_prompt(draw, 512), 4, at_s=0.15)])
    told = ours([*asks, Ask(_prompt(draw, length), 4, at_s=0.15)])
    return max(1000 * (b - a) for row in told.times[:4] for a, b in pairwise(row))


class CTranslate2:
    """The peer in its own process; see `benchmarks/peer_ctranslate2.py`. Takes whole batches."""

    def __init__(self, folder: Path, path: str, threads: int) -> None:
        environment = os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{path}"}
        script = Path(__file__).with_name("peer_ctranslate2.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._ask({"folder": str(folder), "dtype": "float32", "threads": threads})

    def __call__(self, asks: Sequence[Ask]) -> Told:
        found = Told([[] for _ in asks])
        answer = self._ask({"prompts": [ask.prompt for ask in asks], "tokens": asks[0].tokens})
        found.times = answer["times"]
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _ask(self, value: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the CTranslate2 process ended")
        return json.loads(line)


@contextmanager
def engines_of(folder: Path, dtype: str, peer: str, threads: int) -> Iterator[dict[str, Engine]]:
    """All engines over one folder; CTranslate2 in fp32 alone and where it is installed."""
    engines: dict[str, Engine] = {
        OURS: Ours(folder, dtype),
        EAGER: Generate(folder, dtype),
        COMPILED: Generate(folder, dtype, compiled=True),
        CONTINUOUS: ContinuousBatching(folder, dtype),
    }
    outside = CTranslate2(folder, peer, threads) if peer and dtype == "float32" else None
    if outside is not None:
        engines[CT2] = outside
    try:
        yield engines
    finally:
        if outside is not None:
            outside.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the embedded model, batch 1 and 8, ragged")
    parser.add_argument("--models", default="embedded,42M,110M", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of all engines")
    parser.add_argument("--rounds", type=int, default=3, help="engines in turn, so often")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all engines")
    parser.add_argument("--ctranslate2", default="", metavar="PYTHONPATH", help="where it is installed")
    parser.add_argument("--json", type=Path, help="write the report there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = ["embedded"] if options.quick else options.models.split(",")
    batches, slow = ((1, 8), (CONTINUOUS, COMPILED)) if options.quick else ((1, 8, 32), ())
    report = _begun(options.json)
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            context, length = CONTEXTS.get(name, (2_048, 1_800))
            folder = make(name, Path(work), context)
            with engines_of(folder, options.dtype, options.ctranslate2, options.threads) as engines:
                found = report["models"][name] = {
                    "hardware": machine(),
                    "settings": {
                        "threads": options.threads,
                        "rounds": options.rounds,
                        "dtype": options.dtype,
                    },
                }
                for case, figures in measured(engines, batches, options.rounds, slow):
                    found[case] = figures
                    _keep(options.json, report)
            found[f"longest gap as a prompt of {length} tokens lands, ms"] = {
                way: long_prompt(folder, options.dtype, length, chunked=way == "chunked")
                for way in ("unchunked", "chunked")
            }
            show(name, found)
            _keep(options.json, report)


def _begun(path: Path | None) -> dict[str, Any]:
    """The report in the file, of models that were measured before, or an empty one."""
    if path is not None and path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {"name": "text_engine", "models": {}}


def _keep(path: Path | None, report: dict[str, Any]) -> None:
    """A run that is cut short leaves what it has measured."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measured(
    engines: dict[str, Engine], batches: Sequence[int], rounds: int, slow: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All cases of one model, one by one; without the engines that are too slow for this run."""
    for case in map(equal, batches):
        figures = compare(case, _without(engines, (*case.slow, *slow)), rounds)
        yield case.name, figures
    busy = figures["engines"][OURS]["tokens_a_second"]
    case = ragged(0.0)
    case = ragged(0.5 * sum(ask.tokens for ask in case.asks) / busy)
    yield case.name, compare(case, _without(engines, case.slow), rounds)


def show(name: str, found: dict[str, Any]) -> None:
    """A table to read."""
    for case, result in found.items():
        if "engines" not in result:
            print(f"{name}, {case}: {result}")
            continue
        for engine, figures in result["engines"].items():
            ratio = result["ratios"].get(engine)
            against = f"  upbeat is {ratio[0]:.2f}x [{ratio[1]:.2f}, {ratio[2]:.2f}]" if ratio else ""
            print(
                f"{name}, {case}, {engine}: {figures['tokens_a_second']:.0f} tokens/s, first token"
                f" {figures['first_token_p50_ms']:.0f} ms, gap {figures['gap_p50_ms']:.1f} /"
                f" {figures['gap_p99_ms']:.1f} ms{against}"
            )
        for engine, why in result["left_out"].items():
            print(f"{name}, {case}, {engine}: left out: {why}")


if __name__ == "__main__":
    main()
