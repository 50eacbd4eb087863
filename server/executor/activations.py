"""Memory that slices take while they run, beside committed state: reserved at plan, returned when they end.

Rules
1. A slice reserves the most that any of its kind and size has taken so far, and keeps it while suspended.
2. A newcomer that does not fit takes the place of suspended slices less urgent than itself: they are closed
   and fall back to the last commit. For those that are more urgent it waits.
3. A slice that is alone always begins: waiting would not help.
So nobody waits for ever: who is waited for holds its memory already and needs nothing more.

Owner: the executor thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pipelines.contract import Batch
from pipelines.device import Device
from server.executor.scheduler import Urgency
from server.executor.slices import Slice

LEARNED = 8


class Activations:
    """What one device has room for; until `open`, and on a CPU, nobody counts."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._room_bytes = math.inf
        self._most: dict[tuple[str, str], dict[int, tuple[float, int]]] = {}
        self._seen: dict[tuple[str, str, int], int] = {}

    def open(self) -> None:
        """On the executor's thread, with all models loaded."""
        self._room_bytes = self._device.room_bytes()

    def needs(self, batch: Batch) -> int:
        """Bytes that the slice is expected to take at most; 0 before one of its kind was seen. A larger one
        that was seen bounds it, else the largest is scaled up."""
        seen = self._most.get((batch.pipeline, batch.kind))
        if not seen:
            return 0
        sizes = sorted(seen)
        size = next((size for size in sizes if size >= _size(batch)), sizes[-1])
        units, most = seen[size]
        return math.ceil(most * max(1.0, batch.units / units))

    def makes_room(self, needed: int, mine: Urgency, others: Iterable[tuple[Urgency, Slice]]) -> list[Slice]:
        """Which suspended slices have to be closed so that the newcomer fits, least urgent first.

        Raises: MemoryError, where it has to wait for a more urgent one.
        """
        left = sorted(others, key=lambda other: other[0])
        closed: list[Slice] = []
        while left and needed + sum(piece.reserved for _, piece in left) > self._room_bytes:
            urgency, piece = left.pop()
            if urgency < mine:
                raise MemoryError
            closed.append(piece)
        return closed

    def enter(self, piece: Slice) -> None:
        """It goes on the device."""
        if self._learns(piece.batch):
            piece.base, _ = self._device.meter()

    def leave(self, piece: Slice, committed: bool) -> None:
        """It leaves the device; what it still holds it keeps while suspended."""
        if not self._learns(piece.batch):
            return
        now, most = self._device.meter()
        piece.peak = max(piece.peak, piece.held + most - piece.base)
        piece.held += now - piece.base
        if committed:
            self._observe(piece.batch, piece.peak)

    def _learns(self, batch: Batch) -> bool:
        """Measuring costs some microseconds, so that only the first slices like this one are measured."""
        return self._room_bytes < math.inf and self._seen.get(_kind(batch), 0) < LEARNED

    def _observe(self, batch: Batch, peak_bytes: int) -> None:
        self._seen[_kind(batch)] = self._seen.get(_kind(batch), 0) + 1
        sizes = self._most.setdefault((batch.pipeline, batch.kind), {})
        units, most = sizes.get(_size(batch), (batch.units, 0))
        sizes[_size(batch)] = (max(units, batch.units), max(most, peak_bytes))


def _size(batch: Batch) -> int:
    """The power of two that bounds its units."""
    return max(0, math.ceil(math.log2(max(batch.units, 1.0))))


def _kind(batch: Batch) -> tuple[str, str, int]:
    return batch.pipeline, batch.kind, _size(batch)
