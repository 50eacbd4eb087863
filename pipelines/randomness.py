"""Torch's global random numbers, keyed by call instead of by order.

Modules that we do not write draw from the global generators. Where such a call can be suspended, another
call draws in between, and the order of switches would decide what each gets.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import torch

T = TypeVar("T")


def keyed(seed: int, device: torch.device, steps: Generator[None, None, T]) -> Generator[None, None, T]:
    """Runs `steps` with the global generators (the CPU's and `device`'s) as `torch.manual_seed(seed)` would
    leave them, whatever other calls draw while it is suspended; theirs are left as they were.
    """
    outside = _read(device)
    torch.manual_seed(seed)
    inside = _read(device)
    _write(outside, device)
    while True:
        outside = _read(device)
        _write(inside, device)
        try:
            next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer
        finally:
            inside = _read(device)
            _write(outside, device)
        try:
            yield
        except GeneratorExit:
            steps.close()
            raise


def _read(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _write(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
