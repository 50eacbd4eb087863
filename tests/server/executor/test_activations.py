"""Memory of running slices: what is learned, what is reserved, who falls back and who waits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pipelines.contract import Batch, Emission
from pipelines.messages import Done, JobClass
from server.executor.activations import LEARNED, Activations
from server.executor.scheduler import Urgency
from tests.server.executor.bench import Bench, InstantDevice
from tests.server.executor.toy import ToyPipeline

R, I, S, B = JobClass  # noqa: E741


@dataclass(slots=True)
class HungryToy(ToyPipeline):
    """A slice holds `bytes` from its first point to its end, however it ends."""

    device: InstantDevice | None = None
    bytes: int = 0

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        assert self.device is not None
        self.device.take(self.bytes)
        try:
            yield from ToyPipeline.run(self, batch)
        finally:
            self.device.take(-self.bytes)


def hungry(room: float, *sizes: int, points: int = 3) -> tuple[Bench, InstantDevice]:
    """A pipeline for each size, whose slices have all been seen once."""
    device = InstantDevice()
    toys = [
        HungryToy(f"toy{n}", device=device, bytes=size, points=points, cost_ms=100.0)
        for n, size in enumerate(sizes)
    ]
    bench = Bench(*toys, device=device)
    device.room = room
    bench.executor._activations.open()
    for toy in toys:
        bench.submit(pipeline=toy.name)
        bench.run()
    return bench, device


def test_the_peak_is_learned_by_kind_and_size_and_scaled_beyond() -> None:
    bench, _ = hungry(1000.0, 400)
    found = bench.executor._activations
    assert found.needs(Batch("toy0", "toy", (), 1.0)) == 400
    assert found.needs(Batch("toy0", "toy", (), 4.0)) == 1600
    assert found.needs(Batch("toy0", "other", (), 1.0)) == 0
    assert all(not piece for piece in bench.executor._suspended)


def test_measuring_ends_when_enough_was_seen() -> None:
    bench, device = hungry(1000.0, 400)
    for _ in range(LEARNED):
        bench.submit(pipeline="toy0")
        bench.run()
    device.most = 10_000
    bench.submit(pipeline="toy0")
    bench.run()
    assert device.most == 10_000, "the meter is not read any more"


def test_on_a_cpu_nobody_counts() -> None:
    activations = Activations(InstantDevice())
    activations.open()
    assert activations.makes_room(1 << 60, bench_urgency(), []) == []


def bench_urgency() -> Urgency:
    bench = Bench(ToyPipeline())
    bench.submit()
    bench.executor._drain()
    (job,) = bench.executor._book.live("toy")
    return bench.executor._scheduler.urgency(job)


@pytest.mark.parametrize(("room", "most"), [(math.inf, 800), (800.0, 800), (700.0, 400), (100.0, 400)])
def test_a_newcomer_takes_the_place_of_a_less_urgent_slice(room: float, most: int) -> None:
    """A suspended image of 400 bytes, then a voice of 400: both fit in 800; in less the image falls back. A
    slice alone begins however little room there is."""
    bench, device = hungry(room, 400, 400)
    seen = 0

    def give_way() -> bool:
        nonlocal seen
        if not seen:
            bench.submit(R, pipeline="toy1")
        seen = max(seen, device.used)
        return False

    bench.executor._give_way = give_way
    image = bench.submit(S, what=2, pipeline="toy0")
    bench.run()
    assert seen == most
    assert all(isinstance(bench.chunks(job)[-1], Done) for job in (image, image + 1))


@pytest.mark.parametrize("room", [400.0, 800.0, 1200.0])
def test_nobody_waits_for_ever_and_nobody_takes_more(room: float) -> None:
    """Exhaustive over the classes of three jobs on three pipelines and over which yields suspend."""
    for classes in itertools.product((R, S, B), repeat=3):
        for suspends in itertools.product((False, True), repeat=3):
            bench, device = hungry(room, 400, 400, 400, points=2)
            pending, yields = list(enumerate(classes)), itertools.count()

            def give_way(
                bench: Bench = bench,
                device: InstantDevice = device,
                pending: list[tuple[int, JobClass]] = pending,
                yields: Iterator[int] = yields,
                suspends: tuple[bool, ...] = suspends,
            ) -> bool:
                if pending:
                    number, job_class = pending.pop(0)
                    bench.submit(job_class, what=2, pipeline=f"toy{number}")
                assert device.used <= room
                now = next(yields)
                return now < len(suspends) and suspends[now]

            bench.executor._give_way = give_way
            give_way()
            bench.run()
            assert all(isinstance(bench.chunks(job)[-1], Done) for job in (4, 5, 6))
            assert device.used == 0
