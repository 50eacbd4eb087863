"""Times of calls on a GPU, and what the GPU could do at best, measured in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

ROUNDS = 15
# Longer than a call takes to launch, so that the device never waits for the host while it is timed.
_AHEAD_CYCLES = 2_000_000
_CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Time:
    """Microseconds of one call: of the device, with cold caches; of the host, to launch it. `cost` is what
    a stream of such calls takes."""

    device: float
    host: float

    @property
    def cost(self) -> float:
        return max(self.device, self.host)


def alternated(calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, Time]:
    """Medians over rounds in which each call is made once, in turn; two rounds first that do not count."""
    flushed = torch.empty(_CACHE_BYTES, dtype=torch.int8, device="cuda")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            flushed.zero_()
            torch.cuda._sleep(_AHEAD_CYCLES)  # type: ignore[no-untyped-call]
            begin.record()
            began = time.perf_counter()
            call()
            host = time.perf_counter() - began
            end.record()
            end.synchronize()
            if number >= 2:
                found[name].append((begin.elapsed_time(end) * 1e3, host * 1e6))
    return {
        name: Time(statistics.median(d for d, _ in times), statistics.median(h for _, h in times))
        for name, times in found.items()
    }


def bandwidth() -> float:
    """Bytes a second of a copy of 1 GiB, read and written."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    times = alternated({"copy": lambda: target.copy_(source)})
    return 2 * source.numel() / (times["copy"].device * 1e-6)


def reading() -> float:
    """Bytes a second that are read: of a sum over 1 GiB, or of the copy where that is faster."""
    source = torch.zeros(1 << 28, dtype=torch.float32, device="cuda")
    times = alternated({"sum": source.sum})
    return max(bandwidth(), 4 * source.numel() / (times["sum"].device * 1e-6))


def flops(dtype: torch.dtype = torch.bfloat16, side: int = 8192) -> float:
    """Floating-point operations a second of a square matrix product."""
    left, right = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    times = alternated({"product": lambda: left @ right})
    return 2 * side**3 / (times["product"].device * 1e-6)
