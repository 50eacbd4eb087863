"""Everything that needs a GPU in one command: `make bench-gpu`, or `python -m benchmarks.gpu [--dry-run]
[--json FOLDER]`.

Equality of the kernels, their table, text decoding at Llama-3-8B's shape, preemption beside images of
SDXL's shape, step caching: under nine minutes on a bare machine with torch 2.11 or newer, triton and Python
3.12. A part whose libraries are absent says so and is skipped. Writes `gpu-NAME.json` and
`kernels-NAME.json`, which switches on the kernels that pay (`kernels.timings`). `--dry-run` runs all parts
on the CPU, tiny, with interpreted kernels: its times mean nothing, and it writes only where it is told to.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
Part = Callable[[dict[str, Any]], dict[str, Any]]


def parts(device: torch.device, *, tiny: bool) -> dict[str, Part]:
    """By name; each gets what the ones before it found, and imports what it needs itself."""
    dtype = torch.float32 if tiny else torch.bfloat16

    def equality(_: dict[str, Any]) -> dict[str, Any]:
        from benchmarks.gpu_equality import measure

        return measure(device, tiny=tiny)

    def kernels(_: dict[str, Any]) -> dict[str, Any]:
        from benchmarks import kernels as table

        return table.interpreted() if tiny else table.measured(compiled=True)

    def text(found: dict[str, Any]) -> dict[str, Any]:
        from benchmarks.gpu_text import measure
        from benchmarks.llama import LLAMA_3_8B, TINY

        if tiny:
            return measure(TINY, device, dtype, ((1, 8),), 1e9, steps=1, warm=0)
        limit = found["kernels"].get("limits", {}).get("bytes_per_s", 1e12)
        return measure(LLAMA_3_8B, device, dtype, ((1, 1024), (8, 1024), (32, 1024)), limit)

    def preemption(_: dict[str, Any]) -> dict[str, Any]:
        from benchmarks.gpu_preemption import measure
        from benchmarks.llama import LLAMA_3_8B, TINY
        from benchmarks.sdxl_shape import SDXL
        from benchmarks.sdxl_shape import TINY as TINY_UNET

        if tiny:
            return measure(
                TINY, TINY_UNET, device, dtype, prompts=(20, 90), count=6, steps=2, promised_ms=25.0
            )
        return measure(
            LLAMA_3_8B, SDXL, device, dtype, prompts=(512, 4096), count=60, steps=10, promised_ms=10.0
        )

    def step_cache(_: dict[str, Any]) -> dict[str, Any]:
        from benchmarks.gpu_images import measure
        from benchmarks.sdxl_shape import SDXL, TINY

        if tiny:
            return measure(TINY, device, dtype, rows=1, rounds=1, warm=0)
        return measure(SDXL, device, dtype, rows=2, rounds=3)

    return {
        "equality": equality,
        "kernels": kernels,
        "text": text,
        "preemption": preemption,
        "step_cache": step_cache,
    }


def run(chosen: dict[str, Part]) -> dict[str, Any]:
    """All parts; what one lacks or fails at is written down, and the others go on."""
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for name, part in chosen.items():
            print(f"{name}:", flush=True)
            began = time.perf_counter()
            try:
                found[name] = part(found)
            except ImportError as error:
                found[name] = {"skipped": f"{error.name or error} is absent"}
                print(f"  skipped: {found[name]['skipped']}")
            except (AssertionError, RuntimeError) as error:
                found[name] = {"broken": repr(error)[:2000]}
                print(f"  broken: {found[name]['broken']}")
            found[name]["seconds"] = round(time.perf_counter() - began, 1)
            print(f"  {found[name]['seconds']} s", flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return found


def sound(found: dict[str, Any]) -> bool:
    """Nothing is broken and every kernel equals its specification."""
    return not any("broken" in part for part in found.values()) and not found["equality"].get("failed")


def write(folder: Path, name: str, found: dict[str, Any]) -> None:
    """`gpu-NAME.json`, and `kernels-NAME.json` where kernels were timed and all are equal to their
    specifications."""
    from benchmarks.stats import machine

    described = machine()
    head = {"device": name, "hardware": described, "command": described["command"]}
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    (folder / f"gpu-{slug}.json").write_text(
        json.dumps({"name": "gpu"} | head | {"parts": found}, indent=1) + "\n"
    )
    if found["kernels"].get("timings") and sound(found):
        body = {"name": "kernels"} | head | found["kernels"]
        (folder / f"kernels-{slug}.json").write_text(json.dumps(body, indent=1) + "\n")


def main() -> None:
    """Command line; exit code 1 where something is broken or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU, with interpreted kernels")
    parser.add_argument("--json", type=Path, help="the folder to write to")
    options = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        sys.exit("Triton is not installed: nothing can be measured.")
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        sys.exit("There is no GPU here. `--dry-run` runs all parts on the CPU.")
    device = torch.device("cpu" if options.dry_run else "cuda")
    found = run(parts(device, tiny=options.dry_run))
    folder = options.json or (None if options.dry_run else RESULTS)
    if folder is not None:
        write(folder, "dry run" if options.dry_run else torch.cuda.get_device_name(), found)
    sys.exit(not sound(found))


if __name__ == "__main__":
    main()
