"""Slices that gave way: a set, not a stack, at most one a pipeline and class (rule 2 of the executor)."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.contract import Job
from server.executor.jobs import JobBook
from server.executor.scheduler import Running, Slot
from server.executor.slices import Slice


class SuspendedSlices:
    """Owner: the executor thread. blocked: slots whose most urgent job has no memory, until something ends
    or arrives."""

    def __init__(self, book: JobBook) -> None:
        self._book = book
        self._slices: dict[Slot, Slice] = {}
        self.blocked: set[Slot] = set()

    def __len__(self) -> int:
        return len(self._slices)

    def __iter__(self) -> Iterator[Slice]:
        return iter(list(self._slices.values()))

    def add(self, piece: Slice) -> None:
        """It has given way at a yield."""
        assert piece.slot not in self._slices
        self._slices[piece.slot] = piece

    def take(self, slot: Slot) -> Slice:
        """The one of this slot, to go on with it."""
        return self._slices.pop(slot)

    def running(self) -> Iterator[Running]:
        """As the scheduler sees them."""
        return (piece.running() for piece in self._slices.values())

    def fall_back(self, piece: Slice) -> None:
        """Close a suspended slice: its rows are ready again as they were at the last commit, or gone."""
        self.end(self.take(piece.slot))

    def fall_back_with(self, job: Job) -> None:
        """Close the suspended slice that the job is a row of, if there is one."""
        for piece in self:
            if job in piece.rows:
                self.fall_back(piece)

    def end(self, piece: Slice) -> None:
        """The slice is over, committed or not: its rows go back, or go."""
        piece.close()
        for job in piece.rows:
            self._book.leave_slice(job, piece.device_ms)
        self.blocked.clear()

    def end_all(self) -> None:
        """The executor stops."""
        for piece in self:
            self.fall_back(piece)
