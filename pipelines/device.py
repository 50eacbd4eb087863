"""What the executor needs from a device, and what it does not need on a CPU (rules 7 and 8).

Rule 7: memory returns by event. `retire` runs a clean-up only after everything launched so far has run.
Rule 8: bounded run-ahead. `segment` is called after each stretch of launches between two yields and waits
while more than two are in flight; urgent work launches on a high-priority `cuda_stream`.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

from pipelines.errors import InvalidRequest

SEGMENTS_IN_FLIGHT = 2
ACTIVATIONS_SHARE = 0.9


class Device(Protocol):
    """One device, used by one thread."""

    def enter_thread(self) -> None:
        """Called once, on the executor thread, before anything runs."""

    def switch_to(self, urgent: bool) -> None:
        """What is launched from now on is urgent or not."""

    def segment(self) -> None:
        """A stretch of launches has ended."""

    def retire(self, clean_up: Callable[[], None]) -> None:
        """Run `clean_up` once everything launched so far has run."""

    def collect(self) -> bool:
        """Run the clean-ups whose time has come; whether there were any."""

    def room_bytes(self) -> float:
        """Memory that is left for activations, math.inf where it is not counted."""

    def meter(self) -> tuple[int, int]:
        """Bytes in use now, and the most since the last call."""


class CpuDevice:
    """Work is done when a call returns, so there is nothing to wait for."""

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads or os.cpu_count() or 1

    def enter_thread(self) -> None:
        """Thread counts and inference mode are the thread's own."""
        torch.set_num_threads(self._threads)
        self._mode = _inference_for_good()

    def switch_to(self, urgent: bool) -> None:
        """One queue of work only."""

    def segment(self) -> None:
        """Nothing is in flight."""

    def retire(self, clean_up: Callable[[], None]) -> None:
        """At once."""
        clean_up()

    def collect(self) -> bool:
        """Nothing is kept."""
        return False

    def room_bytes(self) -> float:
        """The system has the memory."""
        return math.inf

    def meter(self) -> tuple[int, int]:
        """Nobody counts."""
        return 0, 0


class CudaDevice:
    """Two streams, an event a segment, clean-ups that wait for their event. Made on the thread that loads the
    models, whose launches go to this device too."""

    def __init__(self, name: str) -> None:
        self._device = torch.device("cuda", torch.device(name).index or 0)  # torch sets no device without one
        torch.cuda.set_device(self._device)
        self._flying: deque[torch.cuda.Event] = deque()
        self._retired: deque[tuple[tuple[torch.cuda.Event, ...], Callable[[], None]]] = deque()

    def enter_thread(self) -> None:
        """Streams belong to the thread that launches on them."""
        self._mode = _inference_for_good()
        torch.cuda.set_device(self._device)
        torch.cuda.synchronize(self._device)  # what loading has launched, on another stream
        self._urgent = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
        self._usual = torch.cuda.Stream(priority=0)  # type: ignore[no-untyped-call]
        torch.cuda.set_stream(self._usual)

    def switch_to(self, urgent: bool) -> None:
        """The stream that is entered waits for what the other has launched so far: state is shared."""
        wanted = self._urgent if urgent else self._usual
        here = torch.cuda.current_stream()
        if here != wanted:
            wanted.wait_event(here.record_event())
            torch.cuda.set_stream(wanted)

    def segment(self) -> None:
        """Waits for the oldest segment while more than two are in flight."""
        self._flying.append(torch.cuda.current_stream().record_event())
        while len(self._flying) > SEGMENTS_IN_FLIGHT:
            self._flying.popleft().synchronize()

    def retire(self, clean_up: Callable[[], None]) -> None:
        """After the events of both streams."""
        events = (self._urgent.record_event(), self._usual.record_event())
        self._retired.append((events, clean_up))

    def collect(self) -> bool:
        """In order, up to the first that is not done."""
        before = len(self._retired)
        while self._retired and all(_over(event) for event in self._retired[0][0]):
            self._retired.popleft()[1]()
        return len(self._retired) < before

    def room_bytes(self) -> float:
        """What is free or only cached, but for a reserve."""
        free, _ = torch.cuda.mem_get_info(self._device)
        cached = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return ACTIVATIONS_SHARE * (free + cached)

    def meter(self) -> tuple[int, int]:
        """Launches are asynchronous, allocations are not: the host knows without waiting."""
        most = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return torch.cuda.memory_allocated(self._device), most


def _inference_for_good() -> torch.inference_mode:
    """Inference mode on this thread for as long as the answer lives: torch ends it with the object."""
    mode = torch.inference_mode()
    mode.__enter__()
    return mode


def _over(event: torch.cuda.Event) -> bool:
    return bool(event.query())  # type: ignore[no-untyped-call]


def open_device(name: str, threads: int) -> Device:
    """ "cpu" or "cuda[:N]". Raises: InvalidRequest where torch finds no such GPU."""
    if name == "cpu":
        return CpuDevice(threads)
    found = torch.cuda.device_count()
    if (torch.device(name).index or 0) >= found:
        words = f"{name} is not there: torch {torch.__version__} finds {found} GPUs"
        raise InvalidRequest("device.device", words)
    return CudaDevice(name)
