"""The device's side of the executor's thread."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
import torch

from pipelines.device import CpuDevice, CudaDevice, open_device
from pipelines.errors import InvalidRequest


def test_inference_mode_stays_on_for_the_thread() -> None:
    seen: list[bool] = []

    def work() -> None:
        device = CpuDevice(1)
        device.enter_thread()
        gc.collect()
        seen.append(torch.is_inference_mode_enabled())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
    assert not torch.is_inference_mode_enabled()


def test_a_cpu_retires_at_once() -> None:
    done: list[int] = []
    CpuDevice(1).retire(lambda: done.append(1))
    assert done == [1]


class Event:
    """A CUDA event that is over when the test says so."""

    def __init__(self) -> None:
        self.over = False
        self.waited = False

    def query(self) -> bool:
        return self.over

    def synchronize(self) -> None:
        self.waited = True


class Stream:
    """A CUDA stream that keeps its events."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.events: list[Event] = []
        self.waits: list[Event] = []

    def record_event(self) -> Event:
        self.events.append(Event())
        return self.events[-1]

    def wait_event(self, event: Event) -> None:
        self.waits.append(event)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """What was set as the thread's device; torch's own takes none without an index."""
    found: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    return found


@pytest.fixture
def cuda(devices: list[torch.device], monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaDevice]:
    """A CUDA device over fake streams, entered on this thread."""
    current: list[Stream] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.append(stream))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    device = CudaDevice("cuda:0")
    device.enter_thread()
    yield device
    device._mode.__exit__(None, None, None)


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_the_loading_thread_launches_on_the_device_too(
    name: str, index: int, devices: list[torch.device]
) -> None:
    open_device(name, 1)
    assert [each.index for each in devices] == [index]


def test_a_gpu_that_is_not_there_is_named(devices: list[torch.device]) -> None:
    with pytest.raises(InvalidRequest, match=r"device\.device: cuda:4 is not there: torch .* finds 4 GPUs"):
        open_device("cuda:4", 1)
    assert devices == []


def test_at_most_two_segments_are_in_flight(cuda: CudaDevice) -> None:
    usual = torch.cuda.current_stream()
    assert isinstance(usual, Stream)
    for _ in range(5):
        cuda.segment()
    assert [event.waited for event in usual.events] == [True, True, True, False, False]


def test_the_stream_that_is_entered_waits_for_what_the_other_launched(cuda: CudaDevice) -> None:
    usual = torch.cuda.current_stream()
    cuda.switch_to(urgent=True)
    urgent = torch.cuda.current_stream()
    assert isinstance(usual, Stream) and isinstance(urgent, Stream)
    assert urgent.priority < usual.priority
    assert urgent.waits == usual.events
    cuda.switch_to(urgent=True)
    assert len(urgent.waits) == 1


def test_memory_waits_for_the_events_of_both_streams(cuda: CudaDevice) -> None:
    done: list[int] = []
    cuda.retire(lambda: done.append(1))
    assert not cuda.collect()
    usual = torch.cuda.current_stream()
    assert isinstance(usual, Stream)
    usual.events[-1].over = True
    assert not cuda.collect()
    cuda._urgent.events[-1].over = True
    assert cuda.collect()
    assert done == [1]
