"""Makes a call into modules that we do not write preemptible, without forking their code.

`add_points` puts a forward pre-hook on chosen submodules. `interruptible` runs the call in a greenlet;
each hook switches out of it, which the generator turns into a `yield`. Closing the generator throws
GreenletExit into the call, so its frames unwind; a model that is called outside `interruptible` is not
affected by the hooks.

Rules:
  1. Thread-wide torch state (inference mode, gradient mode, autocast, the current CUDA stream) that a
     module sets inside the call is put aside at every switch out and set again at every switch in: what
     one suspended call opened must not leak into another.
  2. The generator is resumed on the thread that started it (greenlets belong to a thread).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet
import torch

T = TypeVar("T")
_DEVICES = ("cpu", "cuda")


class _Call(greenlet.greenlet):  # type: ignore[misc]
    """Marks the greenlets that hooks may switch out of."""


def add_points(modules: Iterable[torch.nn.Module]) -> int:
    """Make the entry of each module a preemption point. Returns how many there are."""
    count = 0
    for module in modules:
        module.register_forward_pre_hook(_switch_out)
        count += 1
    return count


def point() -> None:
    """A preemption point in our own code; does nothing outside `interruptible`."""
    here = greenlet.getcurrent()
    if isinstance(here, _Call):
        here.parent.switch()


def _switch_out(_module: torch.nn.Module, _args: Any) -> None:
    point()


def interruptible(call: Callable[[], T]) -> Generator[None, None, T]:
    """Run `call`, yielding at every point; returns what it returns.

        noise = yield from interruptible(lambda: unet(latents, timestep, text).sample)

    The caller's own inference mode must be the same at every resume.
    """
    runner = _Call(call)
    state = _ThreadState()
    try:
        while True:
            state.enter()
            result = runner.switch()
            state.leave()
            if runner.dead:
                return result  # type: ignore[no-any-return]
            yield
    finally:
        if not runner.dead:
            state.enter()
            runner.throw(greenlet.GreenletExit)
            state.leave()


class _ThreadState:
    """Torch's thread-wide switches as they are inside a call, put aside while it is suspended.

    Torch offers inference mode only as a scope. So a scope with the caller's mode is opened around each
    suspension; leaving it brings the call's own mode back, whatever other calls did in between.
    """

    def __init__(self) -> None:
        self._outside = _read()
        self._inside = self._outside
        self._suspension: torch.inference_mode | None = None

    def enter(self) -> None:
        """Switching in."""
        self._outside = _read()
        if self._suspension is not None:
            self._suspension.__exit__(None, None, None)
            self._suspension = None
        _apply(self._inside)

    def leave(self) -> None:
        """Switching out, or the call has ended."""
        self._inside = _read()
        if self._inside.inference != self._outside.inference:
            self._suspension = torch.inference_mode(self._outside.inference)
            self._suspension.__enter__()
        _apply(self._outside)


@dataclass(frozen=True, slots=True)
class _Switches:
    inference: bool
    grad: bool
    autocast: tuple[tuple[bool, torch.dtype], ...]
    cuda_stream: Any


def _cuda_used() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _read() -> _Switches:
    return _Switches(
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        tuple((torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _DEVICES),
        torch.cuda.current_stream() if _cuda_used() else None,
    )


def _apply(wanted: _Switches) -> None:
    if torch.is_grad_enabled() != wanted.grad:
        torch._C._set_grad_enabled(wanted.grad)
    for device, (enabled, dtype) in zip(_DEVICES, wanted.autocast, strict=True):
        if torch.is_autocast_enabled(device) != enabled:
            torch.set_autocast_enabled(device, enabled)
        if torch.get_autocast_dtype(device) != dtype:
            torch.set_autocast_dtype(device, dtype)
    if wanted.cuda_stream is not None and torch.cuda.current_stream() != wanted.cuda_stream:
        torch.cuda.set_stream(wanted.cuda_stream)
