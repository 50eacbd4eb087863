"""Whose memory is taken, beside a naive twin that looks at every job: the same choice, at a cost that does
not grow with those who hold nothing."""

from __future__ import annotations

import math
import random

from pipelines.contract import Job
from pipelines.messages import JobClass, TextRequest
from server.executor.scheduler import Scheduler, Slot, Urgency
from tests.server.executor.bench import Bench
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741
NOW_S = 100.0


def naive(scheduler: Scheduler, leases: dict[Job, int], claimant: Job) -> list[Job]:
    """Rule 8 as it was written first: everything is known of everybody before anybody is chosen."""

    def claim(job: Job) -> Urgency:
        rank, ahead, deadline_s = scheduler._standing(job, leads=False)
        return scheduler.urgency(job)._replace(
            rank=rank, ahead=ahead, over=False, deadline_s=deadline_s, tenant_cost=0.0
        )

    def held(leases: dict[Job, int], rank: int) -> tuple[int, int]:
        own = sum(units for job, units in leases.items() if job.rank == rank)
        return own, sum(units for job, units in leases.items() if job.rank < rank)

    others = {job: units for job, units in leases.items() if job is not claimant and units}
    floors = scheduler._floor_rows
    rows = [job for job in others if job.id in floors.get(Slot(job.pipeline, job.rank), ())]
    kept = {job for job in rows if job.rank > claimant.rank}
    kept = {job for job in kept if held(others, job.rank)[0] <= held(others, job.rank)[1]}
    idle = {job for job in others if not job.in_slice and not scheduler.is_ready(job)}
    order = sorted(others, key=lambda job: (job in idle, claim(job)), reverse=True)
    found = [job for job in order if job in idle or (job not in kept and claim(job) > claim(claimant))]
    if scheduler._on_floor == Slot(claimant.pipeline, claimant.rank):
        own, above = held({job: units for job, units in leases.items() if job not in found}, claimant.rank)
        for job in (job for job in order if job not in found and job not in kept):
            if 2 * own < above and job.rank < claimant.rank:
                found.append(job)
                above -= others[job]
    return found


class World:
    """Jobs of one pipeline in all states that rule 8 looks at."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.scheduler = Scheduler(25.0)
        self.scheduler.tick(NOW_S)
        self.jobs = [self.job(number, rng) for number in range(1, rng.randint(3, 24))]
        self.leases = {job: rng.choice((0, 0, 1, 2, 5, 20)) for job in self.jobs}
        for job in self.jobs:
            job.in_slice = rng.random() < 0.2
            if not job.in_slice and rng.random() < 0.7:
                self.scheduler.offer(job)
        slots = [Slot("p", rank) for rank in JobClass]
        some = [frozenset(job.id for job in self.jobs if rng.random() < 0.5) for _ in slots]
        self.scheduler._floor_rows = dict(zip(slots, some, strict=True))
        self.scheduler._on_floor = rng.choice([None, *slots])

    def job(self, number: int, rng: random.Random) -> Job:
        job = Job(number, "p", rng.choice("ab"), rng.choice(list(JobClass)), TextRequest())
        job.committed, job.session_id = rng.random() < 0.8, rng.choice("xy")
        job.arrived_s = NOW_S - rng.choice((0.0, 1.0, 1000.0))
        job.deadline_s = rng.choice((math.inf, NOW_S + 1))
        job.dry_s = rng.choice((-math.inf, NOW_S + rng.random()))
        job.ahead_until_s = rng.choice((-math.inf, NOW_S + 0.2))
        if rng.random() < 0.2:
            job.consumer = self.job(1000 + number, rng)
        return job


def test_the_choice_is_that_of_the_naive_twin() -> None:
    taken = floors = 0
    for seed in range(200):
        world = World(seed)
        scheduler, leases = world.scheduler, world.leases
        for claimant in filter(scheduler.is_ready, world.jobs):
            found = scheduler.victims(world.jobs, leases.__getitem__, claimant)
            wanted = naive(scheduler, leases, claimant)
            assert [job for job in found if leases[job]] == wanted
            taken += len(wanted)
            floors += any(job.rank < claimant.rank and scheduler.is_ready(job) for job in wanted)
    assert taken > 1000 and floors > 50


def test_who_holds_nothing_costs_nothing() -> None:
    """Beside two thousand waiting jobs, none of which is asked what it holds."""

    class Asked(ToyPipeline):
        asked = 0

        def holders(self) -> list[Job]:
            return [job for job in self.admitted.values() if job.state.holds]

        def leased(self, job: Job) -> int:
            type(self).asked += 1
            return ToyPipeline.leased(self, job)

    bench = Bench(Asked(room=3, max_rows=1))
    idle = [bench.submit(S, what=2, credits=1) for _ in range(3)]
    bench.run()
    for _ in range(2000):
        bench.submit(B)
    urgent = bench.submit(R)
    while not bench.chunks(urgent):
        bench.executor.step()
    assert bench.executor.counters.evictions == 1 and Asked.asked == 1
    assert all(len(bench.chunks(job)) == 1 for job in idle)
