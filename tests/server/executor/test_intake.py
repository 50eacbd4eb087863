"""What is prepared off the executor's thread, and in whose light."""

from __future__ import annotations

from pipelines.contract import Pipeline
from pipelines.messages import (
    Cancel,
    Input,
    JobClass,
    PromptRevision,
    Request,
    Stop,
    Submit,
    TextRequest,
    Update,
)
from server.executor.inbox import Arrival
from server.executor.intake import Intake
from tests.fakes import FakeClock
from tests.server.executor.toy import ToyPipeline


class Counting(ToyPipeline):
    """Prepares an input to the numbers of all revisions that it was told of."""

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        if not isinstance(value, PromptRevision):
            return super().prepare(request, value)
        return (*before, value.number) if isinstance(before, tuple) else (value.number,)


def test_each_input_is_prepared_in_the_light_of_its_jobs_last_one() -> None:
    pipelines: dict[str, Pipeline] = {"toy": Counting("toy")}
    arrivals: list[Arrival] = []
    intake = Intake(pipelines, arrivals.append)
    for job_id in (1, 2):
        first = PromptRevision(10 * job_id, "a", final=False)
        order = Submit(
            job_id, "toy", "s", "s.1", "local", JobClass.INTERACTIVE, TextRequest(), 9, first=first
        )
        intake.take(order)
    for job_id, number in ((1, 11), (2, 21), (1, 12)):
        intake.take(Update(job_id, PromptRevision(number, "a b", final=False)))
    assert [arrival.first for arrival in arrivals[:2]] == [(10,), (20,)]
    assert [arrival.prepared for arrival in arrivals[2:]] == [(10, 11), (20, 21), (10, 11, 12)]
    intake.take(Cancel(1))
    intake.take(Update(1, PromptRevision(13, "a", final=False)))
    assert arrivals[-1].prepared is None


class Noting(ToyPipeline):
    """Prepares everything to the tenant it is told."""

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        return tenant


def test_a_pipeline_is_told_whose_job_it_prepares() -> None:
    arrivals: list[Arrival] = []
    intake = Intake({"toy": Noting("toy")}, arrivals.append)
    for job_id, tenant in ((1, "a"), (2, "b")):
        first = PromptRevision(1, "a", final=False)
        intake.take(
            Submit(job_id, "toy", "s", "s.1", tenant, JobClass.INTERACTIVE, TextRequest(), 9, first=first)
        )
    for job_id in (1, 2):
        intake.take(Update(job_id, PromptRevision(2, "a b", final=False)))
    assert [(each.prepared, each.first) for each in arrivals[:2]] == [("a", "a"), ("b", "b")]
    assert [each.prepared for each in arrivals[2:]] == ["a", "b"]


def submitted(job_id: int, tenant: str) -> Submit:
    return Submit(job_id, "toy", "s", "s.1", tenant, JobClass.INTERACTIVE, TextRequest(), 9)


class Slow(ToyPipeline):
    """Each of a's messages takes 100 ms to prepare, each other one 1 ms."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__("toy")
        self._clock = clock

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        self._clock.advance(0.1 if tenant == "a" else 0.001)
        return tenant


def test_one_tenants_slow_messages_do_not_hold_up_the_others() -> None:
    clock = FakeClock()
    taken: list[tuple[int, float]] = []

    def post(arrival: Arrival) -> None:
        if isinstance(arrival.message, Submit | Update | Cancel):
            taken.append((arrival.message.job_id, clock.now()))

    intake = Intake({"toy": Slow(clock)}, post, clock.now)
    for number in range(100):
        intake.put(submitted(number, "a"))
    assert intake.take_next() == submitted(0, "a")
    intake.put(submitted(200, "b"))
    for number in range(5):
        intake.put(Update(200, PromptRevision(number, "a", final=False)))
    intake.put(Cancel(200))
    intake.put(submitted(300, "c"))
    begun_s = clock.now()
    while intake.take_next() is not None:
        pass
    waited = {job_id: at_s - begun_s for job_id, at_s in taken if job_id >= 200}
    assert waited[200] < 0.02 and waited[300] < 0.02, "at most one message of another tenant's"
    assert [job_id for job_id, _ in taken if job_id < 200] == list(range(100))
    intake.put(submitted(400, "b"))
    intake.put(submitted(101, "a"))
    intake.put(Stop())
    assert {type(intake.take_next()) for _ in range(3)} == {Submit, Stop}
    assert not intake.waiting


def test_having_been_away_earns_nothing() -> None:
    clock = FakeClock()
    order: list[int] = []
    intake = Intake({"toy": Slow(clock)}, lambda arrival: order.append(_job(arrival)), clock.now)
    for number in range(50):
        intake.put(submitted(number, "a"))
        intake.take_next()
    for number in range(50, 53):
        intake.put(submitted(number, "a"))
    for number in range(1000, 1400):
        intake.put(submitted(number, "b"))
    while intake.take_next() is not None:
        pass
    assert order.index(51) < 50 + 110 + 110 and order.index(52) < 50 + 3 * 110


def _job(arrival: Arrival) -> int:
    assert isinstance(arrival.message, Submit)
    return arrival.message.job_id
