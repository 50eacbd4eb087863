"""Which kernels pay, on which device: read from the committed results of `python -m benchmarks.kernels`.

A kernel runs only where it was timed on a device of the same name, in the same dtype, and was not slower
than what would run otherwise at the nearest size. So a kernel that was never timed is off, and on a CPU all
are.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"

_forced: frozenset[str] | None = None
_in_graph = False


@dataclass(frozen=True, slots=True)
class Timing:
    """One measurement: `size` in the kernel's own unit (tokens, rows, elements), microseconds of the kernel
    and of what runs without it, as they are launched one by one, and of the device alone."""

    device: str
    kernel: str
    dtype: str
    size: int
    microseconds: float
    otherwise: float
    device_alone: float
    device_otherwise: float


def chosen(kernel: str, x: Tensor, size: int) -> bool:
    """Whether the kernel runs for a call of this size, on x's device and in its dtype."""
    if _forced is not None:
        return kernel in _forced
    if not x.is_cuda:
        return False
    dtype = str(x.dtype).removeprefix("torch.")
    return _pays(kernel, _name(x.device.index or 0), dtype, size.bit_length(), _in_graph)


def possible(x: Tensor) -> bool:
    """Whether any kernel may run on x's device."""
    return x.is_cuda or _forced is not None


def pays(
    timings: tuple[Timing, ...], kernel: str, device: str, dtype: str, size: int, *, in_graph: bool = False
) -> bool:
    """The decision: nearest timed size, in powers of two; the smaller of two that are as near. A graph's
    launches cost the host nothing, so there the device's time decides."""
    found = [t for t in timings if (t.kernel, t.device, t.dtype) == (kernel, device, dtype)]
    if not found:
        return False
    nearest = min(found, key=lambda t: (abs(math.log2(max(1, t.size) / max(1, size))), t.size))
    if in_graph:
        return nearest.device_alone <= nearest.device_otherwise
    return nearest.microseconds <= nearest.otherwise


def read(folder: Path) -> tuple[Timing, ...]:
    """All timings of the folder's `kernels-*.json`. Raises: ValueError naming the file."""
    found: list[Timing] = []
    for path in sorted(folder.glob("kernels-*.json")):
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            device = str(body["device"])
            found += [Timing(device, *_fields(row)) for row in body["timings"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error!r}") from error
    return tuple(found)


@contextlib.contextmanager
def forced(*kernels: str) -> Iterator[None]:
    """These kernels and no others, timed or not: for benchmarks and tests, one thread."""
    global _forced
    before, _forced = _forced, frozenset(kernels)
    try:
        yield
    finally:
        _forced = before


@contextlib.contextmanager
def in_graph() -> Iterator[None]:
    """What is called inside is captured, or prepares for it: one thread."""
    global _in_graph
    before, _in_graph = _in_graph, True
    try:
        yield
    finally:
        _in_graph = before


def _fields(row: dict[str, Any]) -> tuple[str, str, int, float, float, float, float]:
    alone = row["device_microseconds"]
    times = [float(each) for each in (row["microseconds"], row["otherwise"], alone["triton"], alone["torch"])]
    return str(row["kernel"]), str(row["dtype"]), int(row["size"]), times[0], times[1], times[2], times[3]


@lru_cache(maxsize=4096)
def _pays(kernel: str, device: str, dtype: str, bits: int, in_graph: bool) -> bool:
    return pays(_committed(), kernel, device, dtype, 1 << max(0, bits - 1), in_graph=in_graph)


@cache
def _committed() -> tuple[Timing, ...]:
    return read(RESULTS)


@cache
def _name(index: int) -> str:
    return str(torch.cuda.get_device_name(index))
