"""Bad input: each a clear error that names the field and the limit."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pipelines.errors import InvalidRequest
from pipelines.messages import ImageRequest, Message, PromptRevision, Sampling, SpeechText, TextRequest
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver

Drive = Callable[..., Driver]
NAN, INF = float("nan"), float("inf")

BAD: list[tuple[str, Sampling, str]] = [
    ("temperature", Sampling(temperature=-0.1), "from 0.0 to 2.0"),
    ("temperature", Sampling(temperature=2.1), "from 0.0 to 2.0"),
    ("temperature", Sampling(temperature=NAN), "from 0.0 to 2.0"),
    ("temperature", Sampling(temperature=INF), "from 0.0 to 2.0"),
    ("top_p", Sampling(top_p=0.0), "above 0.0 and at most 1.0"),
    ("top_p", Sampling(top_p=1.01), "above 0.0 and at most 1.0"),
    ("top_p", Sampling(top_p=NAN), "above 0.0 and at most 1.0"),
    ("top_k", Sampling(top_k=-1), "from 0 to 320"),
    ("top_k", Sampling(top_k=321), "from 0 to 320"),
    ("min_p", Sampling(min_p=-0.5), "from 0.0 to 1.0"),
    ("min_p", Sampling(min_p=1.5), "from 0.0 to 1.0"),
    ("repetition_penalty", Sampling(repetition_penalty=0.0), "from 0.01 to 2.0"),
    ("repetition_penalty", Sampling(repetition_penalty=1e-38), "from 0.01 to 2.0"),
    ("repetition_penalty", Sampling(repetition_penalty=2.5), "from 0.01 to 2.0"),
    ("presence_penalty", Sampling(presence_penalty=-2.5), "from -2.0 to 2.0"),
    ("frequency_penalty", Sampling(frequency_penalty=INF), "from -2.0 to 2.0"),
    ("max_tokens", Sampling(max_tokens=0), "from 1 to 256"),
    ("max_tokens", Sampling(max_tokens=257), "from 1 to 256"),
    ("logprobs", Sampling(logprobs=21), "from 0 to 20"),
    ("logprobs", Sampling(logprobs=-1), "from 0 to 20"),
    ("stop", Sampling(stop=("x",) * 9), "at most 8"),
    ("stop", Sampling(stop=("",)), "1 to 64 characters"),
    ("stop", Sampling(stop=("x" * 65,)), "1 to 64 characters"),
]


@pytest.fixture(scope="module")
def prompt_request() -> TextRequest:
    return TextRequest((), Sampling())


@pytest.mark.parametrize(("field", "sampling", "limit"), BAD)
def test_sampling_limits(drive: Drive, field: str, sampling: Sampling, limit: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        drive().pipeline.prepare(TextRequest((), sampling), None)
    assert refused.value.field == f"sampling.{field}"
    assert limit in refused.value.message


def test_the_edges_of_every_limit_are_accepted(drive: Drive) -> None:
    for sampling in (
        Sampling(0.0, 1e-6, 0, 0.0, 0.01, -2.0, -2.0, 0, 1, (), 0),
        Sampling(2.0, 1.0, 320, 1.0, 2.0, 2.0, 2.0, 2**64 - 1, 256, ("x" * 64,) * 8, 20),
    ):
        driver = drive()
        driver.submit("one two", sampling)
        batch = driver.plan()
        assert batch is not None
        driver.finish(batch)


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_prompt(drive: Drive, text: str) -> None:
    pipeline = drive().pipeline
    with pytest.raises(InvalidRequest) as refused:
        pipeline.prepare(TextRequest(), PromptRevision(1, text, True))
    assert refused.value.field == "prompt"
    assert pipeline.prepare(TextRequest(), PromptRevision(1, text, False)) is not None


def test_a_prompt_longer_than_the_context(drive: Drive) -> None:
    pipeline = drive().pipeline
    with pytest.raises(InvalidRequest, match=r"prompt: \d{3} tokens with its history; the limit is 255"):
        pipeline.prepare(TextRequest(), PromptRevision(1, "one two three four " * 40, True))
    early = pipeline.prepare(TextRequest(), PromptRevision(1, "one two three four " * 40, False))
    assert len(early.ids) == 255  # type: ignore[attr-defined]


@pytest.mark.parametrize("final", [True, False])
def test_a_hundred_megabytes_are_refused_without_reading_them(drive: Drive, final: bool) -> None:
    pipeline = drive().pipeline
    text = "a" * 100_000_000
    before = time.process_time()
    with pytest.raises(InvalidRequest, match="100000000 characters are more than 256 tokens can hold"):
        pipeline.prepare(TextRequest(), PromptRevision(1, text, final))
    assert time.process_time() - before < 0.2


def test_a_history_of_unknown_roles(drive: Drive) -> None:
    history = (Message("user", "one"), Message("wizard", "two"))
    with pytest.raises(InvalidRequest) as refused:
        drive().pipeline.prepare(TextRequest(history), None)
    assert refused.value.field == "history[1].role"


def test_other_modalities_requests(drive: Drive) -> None:
    pipeline = drive().pipeline
    with pytest.raises(InvalidRequest, match="is a text model"):
        pipeline.prepare(ImageRequest("a red boat"), None)
    with pytest.raises(InvalidRequest, match="prompt revisions"):
        pipeline.prepare(TextRequest(), SpeechText("one", True))


@pytest.mark.parametrize(
    "wrong", [{"dtype": "int3"}, {"max_jobs": 0}, {"kv_tokens": -1}, {"max_chunk": 0}, {"max_rows": 0}]
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TextSettings(**wrong)  # type: ignore[arg-type]


def test_a_pool_smaller_than_one_context_is_refused(drive: Drive) -> None:
    with pytest.raises(ValueError, match="kv_tokens"):
        drive(TextSettings(kv_tokens=255, context_tokens=256))


@pytest.mark.parametrize("temperature", [1e-7, 1e-38, 1e-40, 5e-324])
def test_next_to_no_temperature_takes_the_best(drive: Drive, temperature: float) -> None:
    driver = drive()
    jobs = [driver.submit("one two", Sampling(max_tokens=6, temperature=each)) for each in (0.0, temperature)]
    driver.drain()
    assert driver.tokens(jobs[0]) == driver.tokens(jobs[1])


def test_a_history_of_very_many_messages_is_refused_at_once(drive: Drive) -> None:
    driver = drive()
    history = (Message("user", "a"), Message("assistant", "b")) * 100_000
    job = driver.admit(history=history)
    begun_s = time.process_time()
    with pytest.raises(InvalidRequest, match="200000 messages are more than 256 tokens") as refused:
        driver.revise(job, 1, "one", final=True)
    assert refused.value.field == "history"
    assert time.process_time() - begun_s < 0.1
