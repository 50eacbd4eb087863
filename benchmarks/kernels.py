"""The Triton kernels beside what would run without them: `python -m benchmarks.kernels [--quick] [--json
FILE]`.

On a GPU: microseconds of the kernel, of plain torch, of compiled torch, of SDPA and FlexAttention,
alternating, with cold caches; achieved bandwidth or operations beside the limit that was measured in the
same run. The JSON is what `kernels.timings` reads: committed under `benchmarks/results/kernels-NAME.json`
it switches on what pays. Without a GPU: bytes and operations as counted, and that nothing was timed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_timing import Time, alternated, bandwidth, flops
from benchmarks.kernel_cases import Case, cases
from benchmarks.stats import machine

DTYPE = torch.bfloat16


def counted() -> list[dict[str, Any]]:
    """One row a case: bytes, operations, operations a byte."""
    print(f"{'kernel':20} {'shape':32} {'bytes':>12} {'operations':>14} {'a byte':>7}")
    rows = []
    for case in cases(DTYPE.itemsize, tiny=False):
        each = case.flops / case.bytes
        print(f"{case.kernel:20} {case.shape:32} {case.bytes:12,} {case.flops:14,} {each:7.1f}")
        rows.append({"kernel": case.kernel, "shape": case.shape, "bytes": case.bytes, "flops": case.flops})
    print("There is no GPU here: nothing was timed.")
    return rows


def measured(*, compiled: bool) -> dict[str, Any]:
    """All cases on the GPU, printed as they come. `compiled`: torch.compile too, which takes a minute."""
    limits = {"bytes_per_s": bandwidth(), "flops_per_s": flops(DTYPE)}
    device = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}: {limits['bytes_per_s'] / 1e12:.2f} TB/s copied, ", end="")
    print(f"{limits['flops_per_s'] / 1e12:.0f} TFLOP/s {DTYPE} products")
    rows = []
    with torch.inference_mode():
        for case in cases(DTYPE.itemsize, tiny=False):
            rows.append(one(case, device, limits, compiled=compiled))
            torch.cuda.empty_cache()
    return {"device": torch.cuda.get_device_name(), "limits": limits, "timings": rows}


def interpreted() -> dict[str, Any]:
    """Every tiny case once by Triton's interpreter and by torch: that they run, and nothing about time."""
    device, rows = torch.device("cpu"), []
    for case in cases(torch.float32.itemsize, tiny=True):
        calls = case.make(device, torch.float32)
        for call in (calls.triton, calls.torch, *calls.peers.values()):
            call()
        rows.append(case.kernel)
    print(f"  {len(rows)} cases ran; nothing was timed")
    return {"ran": rows, "timings": []}


def one(case: Case, device: torch.device, limits: dict[str, float], *, compiled: bool) -> dict[str, Any]:
    """The row of one case. `otherwise` is plain torch: what dispatch would take."""
    calls = case.make(device, DTYPE)
    timed = {"triton": calls.triton, "torch": calls.torch, **calls.peers}
    if compiled and calls.compilable:
        timed["compiled"] = torch.compile(calls.torch)
    times = alternated(timed)
    ours = times["triton"].device * 1e-6
    shares = case.bytes / ours / limits["bytes_per_s"], case.flops / ours / limits["flops_per_s"]
    reached = f"{shares[0]:.0%} of bandwidth, {shares[1]:.0%} of FLOP/s"
    print(f"{case.kernel:20} {case.shape:32} {_listed(times)}  {reached}")
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": str(DTYPE).removeprefix("torch."),
        "size": case.size,
        "microseconds": times["triton"].cost,
        "otherwise": times["torch"].cost,
        "device_microseconds": {name: time.device for name, time in times.items()},
        "host_microseconds": {name: time.host for name, time in times.items()},
        "bytes": case.bytes,
        "flops": case.flops,
        "share_of_bandwidth": shares[0],
        "share_of_flops": shares[1],
    }


def _listed(times: dict[str, Time]) -> str:
    return "  ".join(f"{name} {time.device:.1f}" for name, time in times.items())


def write(path: Path, body: dict[str, Any]) -> None:
    """With hardware, versions and command."""
    described = machine()
    whole = {"name": "kernels", "hardware": described, "command": described["command"]} | body
    path.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without compiled torch")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    if torch.cuda.is_available():
        body = measured(compiled=not options.quick)
    else:
        body = {"device": "none", "counted": counted(), "timings": []}
    if options.json:
        write(options.json, body)


if __name__ == "__main__":
    main()
