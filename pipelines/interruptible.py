"""Makes a call into modules that we do not write preemptible, without forking their code.

`add_points` puts a forward pre-hook on chosen submodules. `interruptible` runs the call in a greenlet;
each hook switches out of it, which the generator turns into a `yield`. Closing the generator throws
GreenletExit into the call, so its frames unwind; a model that is called outside `interruptible` is not
affected by the hooks. A point costs about a microsecond.

Rules:
  1. Thread-wide torch state (inference mode, gradient mode, autocast, the current CUDA stream) that a
     module sets inside the call is put aside at every switch out and set again at every switch in: what
     one suspended call opened must not leak into another.
  2. The generator is resumed on the thread that started it (greenlets belong to a thread) and in the
     inference mode that it was started in.
  3. Most calls change nothing, so a switch only compares a few flags, and acts on what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

import greenlet
import torch

T = TypeVar("T")


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
    if type(here) is _Call:
        here.parent.switch()


def _switch_out(_module: torch.nn.Module, _args: Any) -> None:
    point()


def interruptible(call: Callable[[], T]) -> Generator[None, None, T]:
    """Run `call`, yielding at every point; returns what it returns.

        noise = yield from interruptible(lambda: unet(latents, timestep, text).sample)

    Raises: what the call raises.
    """
    runner = _Call(call)
    state = _ThreadState()
    try:
        while True:
            result = state.inside(runner.switch)
            if runner.dead:
                return result  # type: ignore[no-any-return]
            yield
    finally:
        if runner:  # started and not at its end
            state.inside(lambda: runner.throw(greenlet.GreenletExit))


class _Autocast(NamedTuple):
    """Autocast of both devices. dtypes matter while disabled too: a nested scope takes them over."""

    cpu: bool
    cpu_dtype: torch.dtype
    cuda: bool
    cuda_dtype: torch.dtype


# Inference mode, gradient mode, autocast, and the stream as (id, device index, device type), () without
# CUDA. A plain tuple and readers looked up once, since they are needed twice a point.
_Switches = tuple[bool, bool, _Autocast, tuple[int, ...]]
_inference_mode, _grad_mode = torch.is_inference_mode_enabled, torch.is_grad_enabled
_any_autocast = torch._C._is_any_autocast_enabled


class _ThreadState:
    """Torch's thread-wide switches as they are inside a call, put aside while it is suspended.

    Torch offers inference mode only as a scope. So a scope with the caller's mode is opened around each
    suspension; leaving it brings the call's own mode back, whatever other calls did in between.
    """

    __slots__ = ("_cuda", "_inside", "_quiet", "_suspension")

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._quiet = _read_autocast()._replace(cpu=False, cuda=False)
        self._inside = self._read()
        self._suspension: torch.inference_mode | None = None

    def inside(self, switch: Callable[[], T]) -> T:
        """Switch in with the call's own state; on the way out, give the thread back as it was."""
        outside = self._read()
        if self._suspension is not None:
            self._suspension.__exit__(None, None, None)
            self._suspension = None
        if self._inside != outside:
            self._apply(self._inside)
        try:
            return switch()
        finally:
            self._inside = self._read()
            if self._inside != outside:
                if self._inside[0] != outside[0]:
                    self._suspension = torch.inference_mode(outside[0])
                    self._suspension.__enter__()
                self._apply(outside)

    def _read(self) -> _Switches:
        return (
            _inference_mode(),
            _grad_mode(),
            _read_autocast() if _any_autocast() else self._quiet,
            _stream() if self._cuda else (),
        )

    def _apply(self, wanted: _Switches) -> None:
        """All but inference mode, which is a scope."""
        _, grad, autocast, stream = wanted
        torch._C._set_grad_enabled(grad)
        torch.set_autocast_enabled("cpu", autocast.cpu)
        torch.set_autocast_dtype("cpu", autocast.cpu_dtype)
        torch.set_autocast_enabled("cuda", autocast.cuda)
        torch.set_autocast_dtype("cuda", autocast.cuda_dtype)
        if stream:
            number, index, kind = stream
            torch._C._cuda_setStream(stream_id=number, device_index=index, device_type=kind)


def _read_autocast() -> _Autocast:
    return _Autocast(
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
    )


def _stream() -> tuple[int, ...]:
    return torch._C._cuda_getCurrentStream(torch._C._cuda_getDevice())
