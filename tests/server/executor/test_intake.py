"""What is prepared off the executor's thread, and in whose light."""

from __future__ import annotations

from pipelines.contract import Pipeline
from pipelines.messages import Cancel, Input, JobClass, PromptRevision, Request, Submit, TextRequest, Update
from server.executor.inbox import Arrival
from server.executor.intake import Intake
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
