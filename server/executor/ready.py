"""Ready jobs in order. Pure.

Rules
1. A job stands where it was put: changes of its fields do not move it until it is offered again.
2. Levels are read one after the other: by class, committed work before work that can wait ("ahead"). Work in
   spare time rides with no other: it is read alone.
3. In a level, tenants who were served much more than the least served wait (`TenantAccounts.over`); among
   the others the earliest deadline goes first, then the tenant that was served least, then the first to come.
4. Reading is lazy and costs O(tenants) to begin, O(log tenants) a job, however many jobs there are.

Owner: the executor thread, through the scheduler.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple

from pipelines.contract import SPARE, Job
from server.executor.accounts import TenantAccounts

Entry = tuple[float, int, Job]


class Place(NamedTuple):
    """Where a job stands."""

    rank: int
    ahead: bool
    tenant: str
    deadline_s: float


class ReadyQueue:
    """One pipeline's ready jobs: by class and commitment, by tenant, each a list sorted by deadline."""

    def __init__(self, accounts: TenantAccounts) -> None:
        self._accounts = accounts
        self._levels: dict[tuple[int, bool], dict[str, list[Entry]]] = {}
        self._order: list[tuple[int, bool]] = []

    def add(self, place: Place, job: Job) -> None:
        """O(log n) to find the place, a short move of pointers to open it."""
        level = (place.rank, place.ahead)
        if level not in self._levels:
            self._levels[level] = {}
            insort(self._order, level)
        insort(self._levels[level].setdefault(place.tenant, []), (place.deadline_s, job.id, job))

    def remove(self, place: Place, job: Job) -> None:
        """Empty lists go, so that reading stays short."""
        level = (place.rank, place.ahead)
        tenants = self._levels[level]
        entries = tenants[place.tenant]
        del entries[bisect_left(entries, (place.deadline_s, job.id))]
        if not entries:
            del tenants[place.tenant]
            if not tenants:
                del self._levels[level]
                self._order.remove(level)

    def ranks(self) -> list[int]:
        """Classes with a ready job, most urgent first; a class may stand there twice."""
        return [rank for rank, _ in self._order]

    def jobs(self, rank: int) -> Iterator[Job]:
        """All jobs of this class and below, in urgency order."""
        for level in tuple(self._order):
            if level[0] >= rank and (level[0] < SPARE or rank == SPARE):
                yield from self._in_order(self._levels[level])

    def _in_order(self, tenants: dict[str, list[Entry]]) -> Iterator[Job]:
        if len(tenants) == 1:
            (entries,) = tenants.values()
            yield from (job for _, _, job in entries)
            return
        accounts = self._accounts
        heap = [
            (accounts.over(name), entries[0][0], accounts.cost(name), entries[0][1], 0, entries)
            for name, entries in tenants.items()
        ]
        heapify(heap)
        while heap:
            over, _, cost, _, index, entries = heap[0]
            yield entries[index][2]
            index += 1
            if index < len(entries):
                heapreplace(heap, (over, entries[index][0], cost, entries[index][1], index, entries))
            else:
                heappop(heap)
