"""A number on its way from the device to the host, read later without stopping the device."""

from __future__ import annotations

import torch


class Signal:
    """One scalar. On a GPU it is copied to pinned memory as soon as it is there; reading waits for that copy
    alone, and not for what was launched after it."""

    __slots__ = ("_arrived", "_value")

    def __init__(self, value: torch.Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._value = value
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> float:
        """The number."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value)
