"""The Triton kernels beside what would run without them: `python -m benchmarks.kernels [--json PLACE]`.

On a GPU this is `python -m benchmarks.gpu --only equality kernels compiled`: microseconds of the kernel, of
plain torch, of compiled torch, of SDPA and FlexAttention, alternating, with cold caches; achieved bandwidth
or operations beside the limit that was measured in the same run. Without a GPU: bytes and operations as
counted, what each launch compiles to for an H100 or H200, and that nothing was timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_book import Book, attempted
from benchmarks.gpu_timing import Time, alternated, bandwidth, flops
from benchmarks.kernel_cases import Call, Case, cases

# In which the kernels are counted and compiled, and, the others behind it, timed.
DTYPE = torch.bfloat16
DTYPES = (DTYPE, torch.float16, torch.float32)


def counted() -> list[dict[str, Any]]:
    """One row a case: bytes, operations, operations a byte."""
    print(f"{'kernel':20} {'shape':32} {'bytes':>12} {'operations':>14} {'a byte':>7}")
    rows = []
    for case in cases(DTYPE.itemsize, tiny=False):
        each = case.flops / case.bytes
        print(f"{case.kernel:20} {case.shape:32} {case.bytes:12,} {case.flops:14,} {each:7.1f}")
        rows.append({"kernel": case.kernel, "shape": case.shape, "bytes": case.bytes, "flops": case.flops})
    return rows


def binaries() -> list[dict[str, Any]]:
    """One row a binary of the cases, in bfloat16."""
    from benchmarks.kernel_compiling import compiled_only

    with compiled_only() as found, torch.inference_mode():
        for case in cases(DTYPE.itemsize, tiny=False):
            case.make(torch.device("meta"), DTYPE).triton()
    print(f"\n{'sm_90':20} {'registers':>9} {'spilled':>8} {'shared memory':>14} {'threads':>8}")
    for each in found.values():
        print(f"{each.kernel:20} {each.registers:9} {each.spilled:8} {each.shared:14,} {each.threads:8}")
    return [asdict(each) for each in found.values()]


def measured(book: Book) -> None:
    """All cases on the GPU, printed as they come: kernel, plain torch, SDPA. Items: rows that
    `kernels.timings` reads."""
    limits = {"bytes_per_s": bandwidth(), "flops_per_s": flops(DTYPE)}
    limits["flops_per_s_float32"] = flops(torch.float32)
    book.put(limits=limits)
    print(f"  {torch.cuda.get_device_name()}: {limits['bytes_per_s'] / 1e12:.2f} TB/s copied, ", end="")
    print(f"{limits['flops_per_s'] / 1e12:.0f} TFLOP/s {DTYPE} products")
    for name, case, dtype in planned():
        row = partial(one, case, dtype, limits)
        book.item(name, lambda row=row: attempted(row))  # type: ignore[misc]
        torch.cuda.empty_cache()


def planned() -> list[tuple[str, Case, torch.dtype]]:
    """What is timed: each case in each dtype that dispatch asks in, with a name of its own."""
    found = []
    for dtype in DTYPES:
        for case in cases(dtype.itemsize, tiny=False):
            if dtype == (case.dtype or dtype):
                found.append((f"{case.kernel}, {case.shape}, {_name(dtype)}", case, dtype))
    return found


def interpreted(book: Book) -> None:
    """Every tiny case once by Triton's interpreter and by torch: that they run, and nothing about time."""
    for case in cases(torch.float32.itemsize, tiny=True):
        calls = case.make(torch.device("cpu"), torch.float32)
        for call in (calls.triton, calls.torch, *calls.peers.values()):
            call()
        book.item(f"{case.kernel}, {case.shape}", dict)
    print(f"  {len(book.items)} cases ran; nothing was timed")


def one(case: Case, dtype: torch.dtype, limits: dict[str, float]) -> dict[str, Any]:
    """The row of one case. `otherwise` is plain torch: what dispatch would take."""
    calls = case.make(torch.device("cuda"), dtype)
    peers, failed = usable(calls.peers)
    times = alternated({"triton": calls.triton, "torch": calls.torch, **peers})
    ours = times["triton"].device * 1e-6
    most = limits["flops_per_s_float32" if dtype == torch.float32 else "flops_per_s"]
    shares = case.bytes / ours / limits["bytes_per_s"], case.flops / ours / most
    reached = f"{shares[0]:.0%} of bandwidth, {shares[1]:.0%} of FLOP/s"
    print(f"  {case.kernel:20} {case.shape:32} {_name(dtype)} {_listed(times)}  {reached}", flush=True)
    return {
        "kernel": case.kernel,
        "shape": case.shape,
        "dtype": _name(dtype),
        "size": case.size,
        "microseconds": times["triton"].cost,
        "otherwise": times["torch"].cost,
        **_by_name(times),
        **({"failed": failed} if failed else {}),
        "bytes": case.bytes,
        "flops": case.flops,
        "share_of_bandwidth": shares[0],
        "share_of_flops": shares[1],
    }


def usable(peers: dict[str, Call]) -> tuple[dict[str, Call], dict[str, str]]:
    """(the peers that run here; what the others say): a peer that is missing costs no kernel its row."""
    failed: dict[str, str] = {}
    for name, call in peers.items():
        try:
            call()
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            failed[name] = str(error)[:200]
    return {name: call for name, call in peers.items() if name not in failed}, failed


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def beside_compiled(book: Book) -> None:
    """The kernels beside compiled torch and FlexAttention, which take seconds each to compile."""
    for case in cases(DTYPE.itemsize, tiny=False):
        book.item(f"{case.kernel}, {case.shape}", lambda case=case: _compiled(case))  # type: ignore[misc]
        torch.compiler.reset()
        torch.cuda.empty_cache()


def _compiled(case: Case) -> dict[str, Any]:
    calls = case.make(torch.device("cuda"), DTYPE)
    peers = {name: make() for name, make in calls.compiled.items()}
    if calls.compilable:
        peers["compiled"] = torch.compile(calls.torch)
    peers, failed = usable(peers)
    if not peers:
        return {"failed": failed}
    times = alternated({"triton": calls.triton, **peers})
    print(f"  {case.kernel:20} {case.shape:32} {_listed(times)}", flush=True)
    return _by_name(times) | ({"failed": failed} if failed else {})


def _by_name(times: dict[str, Time]) -> dict[str, Any]:
    return {
        "device_microseconds": {name: time.device for name, time in times.items()},
        "host_microseconds": {name: time.host for name, time in times.items()},
    }


def _listed(times: dict[str, Time]) -> str:
    return "  ".join(f"{name} {time.device:.1f}" for name, time in times.items())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="on a GPU the folder to write to, else the file")
    options = parser.parse_args()
    if torch.cuda.is_available():
        from benchmarks import gpu

        sys.argv[1:] += ["--only", "equality", "kernels", "compiled"]
        gpu.main()
        return
    body: dict[str, Any] = {"name": "kernels", "device": "none", "counted": counted(), "timings": []}
    if importlib.util.find_spec("triton") is not None:
        body["binaries"] = binaries()
    print("There is no GPU here: nothing was timed.")
    if options.json:
        options.json.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
