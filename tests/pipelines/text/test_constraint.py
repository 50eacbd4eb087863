"""Constrained answers: always valid, the same with speculation; bad constraints are refused clearly."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels import RowSampling, draw
from pipelines.errors import InvalidRequest, Unsupported
from pipelines.limits import MAX_GRAMMAR_CHARS
from pipelines.messages import FinishReason, Sampling, TextRequest
from pipelines.text.constraint import Constraint, Constraints
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from tests.text_driver import Driver

Drive = Callable[..., Driver]
MODEL = Path(__file__).parents[3] / "models" / "upbeat-text"
ORDER = json.dumps(
    {
        "type": "object",
        "properties": {
            "drink": {"enum": ["latte", "espresso"]},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "hot": {"type": "boolean"},
        },
        "required": ["drink", "count", "hot"],
        "additionalProperties": False,
    }
)
MANY = json.dumps({"type": "object", "properties": {f"p{i}": {} for i in range(4000)}})


def random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kind = rng.choice(("object", "array", "enum", "boolean", "integer", "null", "string")[2 * (depth > 2) :])
    if kind == "object":
        names = rng.sample(["name", "size", "a b", "größe", "x", "items"], rng.randint(1, 3))
        properties = {name: random_schema(rng, depth + 1) for name in names}
        return {
            "type": "object",
            "properties": properties,
            "required": rng.sample(names, rng.randint(0, len(names))),
            "additionalProperties": False,
        }
    if kind == "array":
        low = rng.randint(0, 2)
        items = random_schema(rng, depth + 1)
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + rng.randint(0, 2)}
    if kind == "enum":
        return {"enum": rng.sample(["red", "blue", 7, True, None, 'a "quoted" one', "süß"], 3)}
    if kind == "string":
        return {"type": "string", "maxLength": rng.randint(1, 12)}
    return {"type": kind} | ({"minimum": 0, "maximum": 99} if kind == "integer" else {})


def follows(value: object, schema: dict[str, Any]) -> bool:
    """The part of JSON schema that `random_schema` uses."""
    if "enum" in schema:
        return any(value == each and type(value) is type(each) for each in schema["enum"])
    if schema["type"] == "object":
        return (
            isinstance(value, dict)
            and set(schema["required"]) <= set(value) <= set(schema["properties"])
            and all(follows(each, schema["properties"][name]) for name, each in value.items())
        )
    if schema["type"] == "array":
        return (
            isinstance(value, list)
            and schema["minItems"] <= len(value) <= schema["maxItems"]
            and all(follows(each, schema["items"]) for each in value)
        )
    if schema["type"] == "string":
        return isinstance(value, str) and len(value) <= schema["maxLength"]
    if schema["type"] == "integer":
        return type(value) is int and 0 <= value <= 99
    return value is None if schema["type"] == "null" else isinstance(value, bool)


@pytest.fixture(scope="module")
def embedded() -> Driver:
    return Driver(TextPipeline.load(MODEL, name="upbeat-text", settings=TextSettings()))


@pytest.mark.parametrize("seed", range(5))
def test_json_answers_follow_random_schemas(embedded: Driver, seed: int) -> None:
    rng = random.Random(seed)
    schemas = [random_schema(rng) for _ in range(12)]
    jobs = [
        embedded.submit(
            rng.choice(("Hello!", "Tell me about the sea.", "What is 6 times 7?")),
            Sampling(
                max_tokens=200,
                temperature=rng.choice((0.0, 0.8, 1.5)),
                seed=rng.randrange(99),
                top_p=rng.choice((1.0, 0.9)),
                repetition_penalty=rng.choice((1.0, 1.2)),
                json_schema=json.dumps(schema),
            ),
        )
        for schema in schemas
    ]
    embedded.drain()
    for job, schema in zip(jobs, schemas, strict=True):
        assert embedded.done(job).reason is FinishReason.STOP
        assert follows(json.loads(embedded.text(job)), schema), (schema, embedded.text(job))
        embedded.release(job)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("regex", [r"(yes|no), \d{2,4}!", "[äöü🙂]{3}", r"a/b\.c", "x*yz"])
def test_answers_match_a_regex(embedded: Driver, regex: str, temperature: float) -> None:
    job = embedded.submit("Hello!", Sampling(max_tokens=60, temperature=temperature, regex=regex))
    embedded.drain()
    text = embedded.text(job)
    if embedded.done(job).reason is FinishReason.STOP:
        assert re.fullmatch(regex, text)
    else:
        assert regex == "x*yz", "only this may go on for ever"
        assert set(text) <= set("xyz")


def test_a_short_limit_cuts_and_says_so(embedded: Driver) -> None:
    job = embedded.submit("Hello!", Sampling(max_tokens=5, json_schema=ORDER))
    whole = embedded.submit("Hello!", Sampling(max_tokens=200, json_schema=ORDER))
    embedded.drain()
    assert embedded.done(job).reason is FinishReason.LENGTH
    assert embedded.text(whole).startswith(embedded.text(job))
    exact = len(embedded.tokens(whole))
    limited = embedded.submit("Hello!", Sampling(max_tokens=exact, json_schema=ORDER))
    embedded.drain()
    assert embedded.done(limited).reason is FinishReason.STOP


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_speculation_changes_nothing_and_forced_tokens_are_free(temperature: float) -> None:
    how = Sampling(max_tokens=100, temperature=temperature, seed=4, json_schema=ORDER, logprobs=2)
    slices, said = [], []
    for drafters in ((), TextSettings().drafters):
        settings = TextSettings(drafters=drafters)
        driver = Driver(TextPipeline.load(MODEL, name="upbeat-text", settings=settings))
        job = driver.submit("Two lattes please", how)
        taken = 0
        while (batch := driver.plan()) is not None:
            driver.finish(batch)
            taken += 1
        slices.append(taken)
        said.append((driver.tokens(job), driver.text(job), driver.done(job).reason))
    assert said[0] == said[1]
    assert slices[1] < 0.5 * slices[0]


def test_a_draft_is_cut_where_the_grammar_ends_it(drive: Drive) -> None:
    driver = drive()
    job = driver.submit("hello", Sampling(max_tokens=30, regex="(one|two) (three|four)"))
    wrong = driver.pipeline._tokenizer.encode("one five").ids
    job.state.expect(wrong)
    batch = driver.plan()
    assert batch is not None
    (draft,) = batch.work.drafts
    assert list(draft) == wrong[: len(draft)]
    assert len(draft) < len(wrong)
    driver.drain()
    assert re.fullmatch("(one|two) (three|four)", driver.text(job))


@pytest.mark.parametrize(
    ("sampling", "field", "reason"),
    [
        (Sampling(json_schema='{"type": "strin"}'), "sampling.json_schema", "strin"),
        (Sampling(json_schema="no json"), "sampling.json_schema", "JSON object"),
        (Sampling(json_schema="[1]"), "sampling.json_schema", "JSON object"),
        (
            Sampling(json_schema='{"type": "array", "uniqueItems": true}'),
            "sampling.json_schema",
            "uniqueItems",
        ),
        (Sampling(regex="[a-z"), "sampling.regex", "regex"),
        (Sampling(regex="(?=x)y"), "sampling.regex", "look-around"),
        (Sampling(regex="a" * (MAX_GRAMMAR_CHARS + 1)), "sampling.regex", str(MAX_GRAMMAR_CHARS)),
        (Sampling(regex="((a{1000}){1000}){1000}"), "sampling.regex", "too many expressions"),
        (Sampling(json_schema=MANY), "sampling.json_schema", "grammar size"),
        (Sampling(regex="a", json_schema="{}"), "sampling.regex", "json_schema"),
        (Sampling(regex="(a*)*" * 200), "sampling.regex", "256 repetitions"),
        (Sampling(json_schema=json.dumps({"pattern": "(a*)*" * 200})), "sampling.json_schema", "repetitions"),
        (
            Sampling(json_schema=json.dumps({"patternProperties": {"(a*)*" * 200: {}}})),
            "sampling.json_schema",
            "repetitions",
        ),
        (Sampling(json_schema='{"type": "integer", "multipleOf": 99991}'), "sampling.json_schema", "10000"),
        (Sampling(json_schema='{"multipleOf": 1e300}'), "sampling.json_schema", "10000"),
        (
            Sampling(json_schema='{"allOf": [{"multipleOf": 331}, {"items": [{"multipleOf": 3.37}]}]}'),
            "sampling.json_schema",
            "10000",
        ),
    ],
)
def test_bad_constraints_are_refused(drive: Drive, sampling: Sampling, field: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(reason)) as refused:
        drive().admit(sampling)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(json_schema='{"anyOf": [{"multipleOf": 0.01}, {"multipleOf": 60}, {"multipleOf": 1000}]}'),
        Sampling(json_schema='{"properties": {"multipleOf": {"type": "string"}, "pattern": {}}}'),
        Sampling(regex=r"\*" * 300 + "a{3}"),
    ],
)
def test_ordinary_divisors_and_repetitions_are_taken(drive: Drive, sampling: Sampling) -> None:
    drive().admit(sampling)


def test_a_model_without_an_end_is_refused(drive: Drive) -> None:
    with pytest.raises(Unsupported):
        drive(eos_token_id=None).admit(Sampling(regex="a+"))


def test_compiled_constraints_are_kept_for_one_tenants_scope_only(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_ = Constraints._compile

    def counting(self: Constraints, schema: str, regex: str) -> Constraint:
        compiled.append(regex)
        return compile_(self, schema, regex)

    monkeypatch.setattr(Constraints, "_compile", counting)
    pipeline = drive().pipeline

    def asks(tenant: str, regex: str, scope: str = "") -> int:
        before = len(compiled)
        pipeline.prepare(TextRequest((), Sampling(regex=regex), scope), None, tenant=tenant)
        return len(compiled) - before

    assert [asks("a", "x+"), asks("a", "x+")] == [1, 0]
    assert [asks("b", "x+"), asks("b", "x+")] == [1, 0], "what a asked for must not show in b's times"
    assert [asks("b", "x+", "a"), asks("a", "x+", "b"), asks("a", "x+", "b")] == [1, 1, 0]
    for i in range(40):
        asks("a", f"x{{{i + 1}}}", str(i))
    assert asks("b", "x+") == 0, "one tenant's constraints must not push another's out"
    assert asks("a", "x+") == 1


def test_an_answer_ahead_starts_its_constraint_again(drive: Drive) -> None:
    how = Sampling(max_tokens=30, json_schema=ORDER)
    driver, whole = drive(), drive()
    job = driver.submit("one two", how)
    driver.drain_until_first_token(job)
    job.state.final = False
    driver.revise(job, 2, "one two three", final=True)
    twin = whole.submit("one two three", how)
    driver.drain()
    whole.drain()
    assert driver.tokens(job) == whole.tokens(twin)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_masks_do_not_shift_the_noise(temperature: float) -> None:
    """What is drawn without a mask is drawn with any mask that allows it."""
    generator = torch.Generator().manual_seed(3)
    for position in range(50):
        logits = torch.randn(1, 64, generator=generator)
        row = RowSampling(position, seed=7, temperature=temperature)
        (free,) = draw(logits.clone(), [row])
        allowed = torch.rand(64, generator=generator) < 0.3
        allowed[free.id] = True
        masked = RowSampling(position, seed=7, temperature=temperature, allowed=allowed)
        assert draw(logits.clone(), [masked])[0].id == free.id
        allowed[free.id] = False
        (other,) = draw(logits.clone(), [masked])
        assert allowed[other.id]
        assert math.isfinite(float(logits[0, other.id]))
