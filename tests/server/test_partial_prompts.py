"""Whole sessions over a real text pipeline: what was typed before the commit changes nothing that is said."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.virtual import Turn, Typists
from clients.edits import Edit, EditScript, typed
from pipelines.messages import Sampling
from pipelines.simultaneous.policies import POLICIES, policy
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from server.executor import accounts
from server.plan import Ahead, Mode, Plan
from tests.text_driver import Folders

HOW = st.builds(
    Sampling,
    max_tokens=st.sampled_from([1, 6, 12]),
    temperature=st.sampled_from([0.0, 0.9]),
    seed=st.integers(0, 2),
    stop=st.sampled_from([(), ("o",)]),
)
PIECES = ("ab ", "seven ", "? ", "plus five. ", "")
EDITS = st.lists(
    st.tuples(st.sampled_from([0.1, 4.0, 30.0, 400.0]), st.integers(0, 30), st.text("ab .,?7", max_size=6)),
    max_size=8,
)


@dataclass
class Server:
    """One tiny model, sessions on a clock that skips."""

    typists: Typists
    pipeline: TextPipeline

    def turn(self, script: EditScript, how: Sampling, ahead: Ahead, tenant: str) -> Turn:
        with torch.inference_mode():
            plan = Plan(tenant=tenant, text=self.pipeline.info, sampling=how, ahead=ahead)
            return self.typists.turn(plan, script)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    torch.set_num_threads(1)
    folder = Folders(tmp_path_factory.mktemp("models"))()
    pipeline = TextPipeline.load(folder, name="tiny", settings=TextSettings(max_chunk=16))
    yield Server(Typists({"tiny": pipeline}), pipeline)
    pipeline._memory.index.shrink(1 << 20)  # type: ignore[union-attr]
    assert pipeline._memory.pool.free == pipeline._memory.pool.size
    assert not pipeline._admitted


def scripted(edits: list[tuple[float, int, str]]) -> EditScript:
    at_ms, length, found = 0.0, 0, [Edit(0.0, 0, "what is ")]
    length = 8
    for pause_ms, place, text in edits:
        at_ms += pause_ms
        place = min(place, length)
        found.append(Edit(at_ms, place, text))
        length = place + len(text)
    script = EditScript(tuple(found))
    if not script.text.strip():
        script = EditScript((*found, Edit(at_ms, length, "seven?")))
    return script


@settings(deadline=None, derandomize=True, max_examples=40)
@given(EDITS, HOW, st.sampled_from(sorted(POLICIES)), st.booleans())
def test_the_committed_answer_is_the_whole_prompts(
    server: Server, edits: list[tuple[float, int, str]], how: Sampling, name: str, emit: bool
) -> None:
    script = scripted(edits)
    ahead = Ahead(mode=Mode.ANSWER_AHEAD, policy=policy(name, ""), emit_before_commit=emit)
    turn = server.turn(script, how, ahead, "typing")
    whole = server.turn(EditScript((Edit(0.0, 0, script.text),)), how, Ahead(mode=Mode.OFF), "whole")
    assert (turn.text, turn.reason) == (whole.text, whole.reason)
    assert turn.usage.completion_tokens == whole.usage.completion_tokens
    assert turn.usage.prompt_tokens == whole.usage.prompt_tokens
    assert emit or not turn.discarded


@settings(deadline=None, derandomize=True, max_examples=15)
@given(EDITS, HOW)
def test_thinking_ends_and_answers(
    server: Server, edits: list[tuple[float, int, str]], how: Sampling
) -> None:
    script = scripted([*edits, (9.0, 30, "it is five. and it is 7. so what is it?")])
    turn = server.turn(script, how, Ahead(mode=Mode.THINK_AHEAD, thoughts=True), "thinking")
    assert turn.reason in ("STOP", "LENGTH")
    assert turn.usage.completion_tokens >= 1


def test_what_is_typed_slowly_is_answered_at_once(server: Server) -> None:
    script = typed("what is seven plus five and how many apples are left over", 600)
    ahead = Ahead(mode=Mode.ANSWER_AHEAD, policy=policy("pause=50", ""))
    early = EditScript((*script.edits, Edit(script.end_ms + 500.0, len(script.text), "")))
    turn = server.turn(early, Sampling(max_tokens=9), ahead, "slow")
    assert turn.passes <= 1
    assert turn.usage.accepted_tokens == turn.usage.completion_tokens == 9
    assert turn.first_token_ms == pytest.approx(turn.last_token_ms)


@pytest.mark.parametrize("seed", range(3))
def test_many_at_once_and_in_debt_are_answered_as_when_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever rides, waits in spare time, is suspended, put off or thrown away: nothing stale is said."""
    monkeypatch.setattr(accounts, "AHEAD_BURST_MS", 1.0)
    monkeypatch.setattr(accounts, "AHEAD_SHARE", 0.001)
    rng = random.Random(seed)
    scripts = [
        scripted([(rng.choice((0.1, 4.0, 30.0)), rng.randrange(30), rng.choice(PIECES)) for _ in range(12)])
        for _ in range(8)
    ]
    flood = (Edit(float(ms), 0, f"{ms} " + "word " * min(30, ms)) for ms in range(100))
    scripts.append(EditScript((*flood, Edit(100.0, 0, "what now?"))))
    ahead = Ahead(mode=Mode.ANSWER_AHEAD, policy=policy("wait_k=1", ""))
    how = Sampling(max_tokens=9)
    plans = [
        Plan(tenant=f"{seed} {n % 3}", text=server.pipeline.info, sampling=how, ahead=ahead)
        for n in range(len(scripts))
    ]
    with torch.inference_mode():
        turns = server.typists.turns(
            [(plan, script, 0.0) for plan, script in zip(plans, scripts, strict=True)]
        )
    for turn, script in zip(turns, scripts, strict=True):
        whole = EditScript((Edit(0.0, 0, script.text),))
        assert turn.text == server.turn(whole, how, Ahead(mode=Mode.OFF), "whole").text
