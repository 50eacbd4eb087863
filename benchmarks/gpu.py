"""Everything that needs a GPU in one command: `make bench-gpu`, or `python -m benchmarks.gpu [--dry-run]
[--json FOLDER] [--only PART ...]`.

Under nine minutes on a bare machine with torch 2.11 or newer (numpy beside it) and triton, Python 3.12. Parts
come in the order of what they are worth, should the machine be taken away before the end. Each runs in
processes of its own with a budget of time (`gpu_parts`): what fails or ends the process costs one item of it,
the next process goes on behind that, and all that was found is on disk seconds later.
Writes `gpu-NAME.json`, and `kernels-NAME.json` with the timings of the kernels that are equal to their
specifications: that file, committed, switches on those that pay (`kernels.timings`). `--dry-run` runs all
parts on the CPU, tiny, with interpreted kernels: its times mean nothing, and it writes only where it is told
to.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_book import DRY

RESULTS = Path(__file__).parent / "results"
# Seconds that each part may take; what is left over goes to nobody.
BUDGETS_S = {
    "compile": 50.0,
    "equality": 70.0,
    "kernels": 65.0,
    "graphs": 30.0,
    "text": 75.0,
    "latency": 45.0,
    "preemption": 100.0,
    "step_cache": 45.0,
    "compiled": 50.0,
}
SAVE_EVERY_S = 5.0
Found = dict[str, dict[str, Any]]
Keep = Callable[[dict[str, Any]], None]


def run(name: str, budget_s: float, keep: Keep, *, dry: bool) -> dict[str, Any]:
    """What the part found: {"items": {item: ...}, ...}; `keep` gets what there is, every few seconds. A
    process that ends early marks the item it was at as broken, and another one takes the rest, until the
    budget is spent."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        book, log = Path(folder) / "book.json", Path(folder) / "log"
        while True:
            left_s = budget_s - (time.monotonic() - began)
            before = _read(book).get("items", {})
            why = _process(name, book, log, left_s, keep, dry=dry)
            body = _read(book)
            if why is None:
                break
            at = body.get("now") or "start"
            print(f"  broken: {at}: {why}", flush=True)
            body.setdefault("items", {})[at] = {"broken": why}
            book.write_text(json.dumps(body))
            if why.startswith("ran out") or len(body["items"]) == len(before):
                break
    body.pop("now", None)
    return body | {"seconds": round(time.monotonic() - began, 1)}


def _process(name: str, book: Path, log: Path, left_s: float, keep: Keep, *, dry: bool) -> str | None:
    """One attempt; None where it came to its end, else why not."""
    command = [sys.executable, "-m", "benchmarks.gpu_parts", name, str(book), *(["--tiny"] if dry else [])]
    environment = dict(os.environ)
    if dry and name != "compile":
        environment["TRITON_INTERPRET"] = "1"
    with log.open("w") as errors:
        child = subprocess.Popen(command, stderr=errors, env=environment, start_new_session=True)
        until, code = time.monotonic() + max(0.1, left_s), None
        while code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(max(0.0, min(SAVE_EVERY_S, until - time.monotonic())))
            keep(_read(book))
            if code is None and time.monotonic() >= until:
                os.killpg(child.pid, signal.SIGKILL)  # with the processes that it compiles in
                child.wait()
                return f"ran out of its {left_s:.0f} s"
    if code == 0:
        return None
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: " + " | ".join(said[-4:])[-1500:]


def _read(book: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(book.read_text()) if book.exists() else {}
    return body


def broken(found: Found) -> list[str]:
    """The items that did not come to their end, by part."""
    return [
        f"{part}: {item}"
        for part, body in found.items()
        for item, value in body.get("items", {}).items()
        if "broken" in value
    ]


def different(found: Found) -> list[str]:
    """The kernels that are not known to be equal to their specifications."""
    body = found.get("equality", {})
    wanted, items = body.get("planned", []), body.get("items", {})
    unequal = {name.split(",")[0] for name in wanted if not items.get(name, {}).get("equal")}
    return sorted(unequal | ({"add_rms_norm"} if "rms_norm" in unequal else set()))


def write(folder: Path, found: Found, command: str) -> None:
    """`gpu-NAME.json`, which keeps the parts that did not run again, and `kernels-NAME.json` where kernels
    were timed."""
    told = next((body["hardware"] for body in found.values() if "hardware" in body), None)
    if told is None:
        return
    head = {"device": told["device"], "timed": told["device"] != DRY, "hardware": told, "command": command}
    parts = {
        name: {k: v for k, v in body.items() if k not in ("hardware", "planned")}
        for name, body in found.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", str(told["device"]).lower()).strip("-")
    path = folder / f"gpu-{slug}.json"
    _dump(path, {"name": "gpu"} | head | {"parts": _read(path).get("parts", {}) | parts})
    if "equality" not in found or not found["equality"].get("planned"):
        return
    off = different(found)
    rows = [row for row in found.get("kernels", {}).get("items", {}).values() if "microseconds" in row]
    equal = [row for row in rows if row["kernel"] not in off]
    if equal:
        body = {"limits": found["kernels"]["limits"], "unequal": off, "timings": equal}
        _dump(folder / f"kernels-{slug}.json", {"name": "kernels"} | head | body)


def _dump(path: Path, body: dict[str, Any]) -> None:
    """At once: a part that runs may be reading what the one before it has found."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(body, indent=1) + "\n")
    beside.replace(path)


def main() -> None:
    """Command line; exit code 1 where something is broken or differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU, with interpreted kernels")
    parser.add_argument("--json", type=Path, help="the folder to write to")
    parser.add_argument("--only", nargs="+", choices=list(BUDGETS_S), help="these parts alone")
    options = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        sys.exit("Triton is not installed: nothing can be measured.")
    if not options.dry_run and not torch.cuda.is_available():
        sys.exit("There is no GPU here. `--dry-run` runs all parts on the CPU.")
    folder = options.json or (None if options.dry_run else RESULTS)
    wanted = {name: BUDGETS_S[name] * (5.0 if options.dry_run else 1.0) for name in options.only or BUDGETS_S}
    print(f"{len(wanted)} parts, at most {sum(wanted.values()) / 60:.1f} minutes", flush=True)
    command = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]) if options.dry_run else "make bench-gpu"
    if options.only and not options.dry_run:
        command += f" ARGS='--only {' '.join(options.only)}'"
    found: Found = {}
    for name, budget_s in wanted.items():
        print(f"{name}, at most {budget_s:.0f} s:", flush=True)

        def keep(body: dict[str, Any], name: str = name) -> None:
            if folder is not None:
                write(folder, found | {name: body}, command)

        found[name] = run(name, budget_s, keep, dry=options.dry_run)
        print(f"  {found[name]['seconds']} s", flush=True)
        if folder is not None:
            write(folder, found, command)
    failures = broken(found) + [f"not equal: {kernel}" for kernel in different(found)]
    graphs = found.get("graphs", {}).get("items", {})
    failures += [
        f"captured steps, not equal: {dtype}" for dtype, each in graphs.items() if not each.get("equal")
    ]
    well = "all parts came to their end" + (", all kernels are equal" if "equality" in found else "")
    print("\n".join(["", *failures]) if failures else well)
    if options.dry_run:
        print("This was a dry run on the CPU: NOTHING WAS TIMED. Milliseconds above are the interpreter's.")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
