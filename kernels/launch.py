"""What all Triton kernels share. Only modules that need Triton import this one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_INTERPRETED = tl.constexpr(INTERPRETED)

# tl.dot takes no side shorter than this.
DOT_SIDE = 16


@triton.jit
def dot(left: tl.tensor, right: tl.tensor) -> tl.tensor:
    """left @ right, summed in fp32; fp32 operands as three products of TF32, which loses nothing of note."""
    if _INTERPRETED:  # the interpreter multiplies the bit patterns of bfloat16
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision="tf32x3")


def power_of_2(number: int, least: int = 1) -> int:
    """The smallest power of two that is not below `number` and `least`."""
    return max(least, 1 << max(0, number - 1).bit_length())


def ceil_to(number: int, multiple: int) -> int:
    """The least multiple that is not below `number`."""
    return -(-number // multiple) * multiple


_elsewhere = 4


@cache
def _processors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def processors(device: torch.device) -> int:
    """How many blocks the device runs side by side; elsewhere a few, or as many as `as_if` says."""
    return _processors(device) if device.type == "cuda" else _elsewhere


@contextlib.contextmanager
def as_if(processors: int) -> Iterator[None]:
    """What is compiled for a GPU that is not there is compiled for so many: one thread."""
    global _elsewhere
    before, _elsewhere = _elsewhere, processors
    try:
        yield
    finally:
        _elsewhere = before
