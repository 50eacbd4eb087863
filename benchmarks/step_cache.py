"""Step caching: what it saves and what it costs: `python -m benchmarks.step_cache [--quick] [--json FILE]`.

Pictures of unseen captions with one seed each, on the embedded U-Net or any folder (`--model`): every
strategy and level of Upbeat, fewer steps at equal evaluations with the folder's own scheduler and with
DPM-Solver++(2M) and UniPC, the DeepCache package and diffusers' own caches, all against the uncached picture
of the same seed and against a solution of many steps. Times are of single pictures, alternating, on the
thread's own processor clock. `--calibrate` finds the folder's masks and writes them into it, and measures
nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.cache_calibration import calibrate, write
from benchmarks.cache_lives import lives_report
from benchmarks.cache_quality import (
    CALIBRATION_SEED,
    LEVELS,
    Truth,
    arms,
    checked,
    equal_evaluations,
    peers,
    some_captions,
    truth_of,
)
from benchmarks.cache_times import large_model, single_pictures
from benchmarks.image_arrivals import arrivals_report
from benchmarks.image_cancels import cancels_report
from benchmarks.image_runs import Runs
from benchmarks.stats import machine

EMBEDDED = Path(__file__).resolve().parent.parent / "models" / "upbeat-image-unet"
CALIBRATED_STEPS = (12, 20, 28)
EQUAL_EVALUATIONS = (10, 12, 16)
FEW_STEPS = 12
PARTS = ("arms", "equal", "peers", "checker", "time", "large", "arrivals", "cancels", "lives")
QUALITY = {"arms", "equal", "peers"}


@dataclass(slots=True)
class Report:
    """The figures of a run, written as soon as a part has ended: a long run may be cut short. Parts may come
    from several runs; "measured" says by part how and where."""

    path: Path | None
    settings: dict[str, Any]

    def add(self, **parts: Any) -> None:
        """Other parts that the file has already are kept."""
        if self.path is None:
            return
        known = json.loads(self.path.read_text()) if self.path.is_file() else {}
        how = self.settings | {"hardware": machine()}
        measured = known.get("measured", {}) | dict.fromkeys(parts, how)
        found = {"name": "step_cache", **known, **parts, "measured": measured}
        self.path.write_text(json.dumps(found, indent=1) + "\n")


def measure(folder: Path, report: Report, options: argparse.Namespace) -> None:
    """All that is asked for."""
    runs, parts, quick = Runs(folder), options.parts.split(","), options.quick
    steps, captions = runs.pipeline.info.default_steps, options.captions or (8 if quick else 64)
    solution_steps = 100 if quick else 200
    report.settings |= {
        "model": folder.name,
        "steps": steps,
        "guidance": runs.guidance,
        "torch_threads": 1,
        "solution_steps": solution_steps,
    }
    if QUALITY & {*parts}:
        report.settings["captions"] = captions
        truth = truth_of(runs, captions, steps, solution_steps, options.references)
        quality(folder, runs, truth, report, quick, parts)
    if "checker" in parts:
        report.settings["captions"] = options.captions or (8 if quick else 256)
        for count in (steps, FEW_STEPS):
            report.add(**{f"checker_{count}": checked(runs, report.settings["captions"], count)})
    if "time" in parts:
        _, few = some_captions(4 if quick else 24, 77)
        report.settings["captions"] = len(few)
        times = single_pictures(runs, few, steps, (*LEVELS, "previews"))
        report.add(time=times, ratios={f"time_{level}": times[level]["speed_up"] for level in LEVELS})
    if "large" in parts:
        sizes = (1, 9, 128) if quick else (2, 28, 256)
        report.add(large_model=large_model(EMBEDDED / "tokenizer", *sizes))
    if "arrivals" in parts:
        _, few = some_captions(16, 77)
        report.settings["captions"] = len(few)
        report.add(arrivals=arrivals_report(runs, few, 12 if quick else 96))
    if "cancels" in parts:
        report.add(cancels=cancels_report(runs, 50 if quick else 300))
    if "lives" in parts:
        report.add(lives=[lives_report(folder, "calibrated", 20 if quick else 500)])


def quality(
    folder: Path, runs: Runs, truth: Truth, report: Report, quick: bool, parts: Sequence[str]
) -> None:
    """The parts that compare pictures with the uncached ones and with the solution."""
    steps = runs.pipeline.info.default_steps
    if "arms" in parts:
        report.add(arms=arms(folder, truth, steps))
    if "peers" in parts:
        report.add(peers=peers(folder, runs, truth, steps, 2 if quick else 16))
    if "equal" in parts:
        counts = EQUAL_EVALUATIONS[1:2] if quick else EQUAL_EVALUATIONS
        report.add(equal_evaluations=equal_evaluations(runs, folder, truth, steps, counts))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 captions instead of 64")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="a model folder")
    parser.add_argument("--calibrate", action="store_true", help="write step_cache.json into the folder")
    parser.add_argument("--captions", type=int, help="so many, in the parts that draw captions once")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of these to run")
    parser.add_argument("--json", type=Path, help="write the figures there; other parts' are kept")
    parser.add_argument("--references", type=Path, help="keep uncached pictures and solutions in this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    with torch.inference_mode():
        if options.calibrate:
            _, captions = some_captions(24, CALIBRATION_SEED)
            for content in calibrate(Runs(options.model), captions, CALIBRATED_STEPS, 9_000):
                write(options.model, content)
            return
        measure(options.model, Report(options.json, {}), options)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
