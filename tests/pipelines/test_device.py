"""The device's side of the executor's thread."""

from __future__ import annotations

import gc
import threading

import torch

from pipelines.device import CpuDevice


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
