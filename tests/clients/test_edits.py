"""Edit scripts: made, recorded, saved, replayed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.edits import Edit, EditScript, Recorder, prompt_after, replay, spoken, typed

TEXTS = st.text("ab c.?", min_size=1, max_size=40)


class FakeTalk:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.text = ""
        self.committed = False

    async def append(self, text: str) -> None:
        self.text += text

    async def revise(self, from_char: int, text: str) -> None:
        self.text = self.text[:from_char] + text

    async def commit(self, text: str | None = None) -> None:
        self.text = text if text is not None else self.text
        self.committed = True


@given(TEXTS, st.floats(0, 1), st.integers(0, 9))
def test_what_is_typed_with_slips_is_the_text(text: str, rate: float, seed: int) -> None:
    script = typed(text, 240, rate, seed)
    assert script.text == text
    assert [edit.at_ms for edit in script.edits] == sorted(edit.at_ms for edit in script.edits)


@given(TEXTS, st.floats(0, 1), st.integers(0, 9))
def test_what_is_heard_with_slips_is_the_text(text: str, rate: float, seed: int) -> None:
    assert spoken(text, 160, rate, seed).text == text


def test_typing_takes_its_time() -> None:
    script = typed("abcd", 240)
    assert [edit.at_ms for edit in script.edits] == [0, 250, 500, 750]
    assert len(typed("one two three four five six", 240, 1.0).edits) > 27


def test_saved_and_loaded(tmp_path: Path) -> None:
    script = typed("naïve 🙂 fox\u2028and\x85more", 600, 0.5, seed=2)
    script.save(tmp_path / "script.jsonl")
    assert EditScript.load(tmp_path / "script.jsonl") == script


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"\xff",
        b'{"at_ms": 0}',
        b'{"at_ms": 0, "from_char": 5, "text": "x"}',
        b'{"at_ms": 0, "from_char": -1, "text": "x"}',
        b'{"at_ms": NaN, "from_char": 0, "text": "x"}',
        b'{"at_ms": 0, "from_char": 0, "text": 5}',
        b'{"at_ms": 0, "from_char": 0, "text": "x", "speed": 2}',
        b"[]",
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(line)
    with pytest.raises(ValueError, match=r"x\.jsonl, line 1"):
        EditScript.load(tmp_path / "x.jsonl")


def test_a_file_without_edits_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").touch()
    with pytest.raises(ValueError, match=r"x\.jsonl: there is no edit"):
        EditScript.load(tmp_path / "x.jsonl")


async def test_recorded_and_replayed() -> None:
    script, heard, again = typed("one two tree", 60_000, 0.5, seed=1), FakeTalk(), FakeTalk()
    times = iter(edit.at_ms / 1000 for edit in script.edits)
    recorder = Recorder(heard, lambda: next(times))
    await replay(recorder, script, speed=1e6)
    assert (heard.text, heard.committed) == ("one two tree", True)
    assert prompt_after(recorder.script.edits) == heard.text
    assert [(e.from_char, e.text) for e in recorder.script.edits] == [
        (e.from_char, e.text) for e in script.edits
    ]
    await replay(again, recorder.script, speed=1e6)
    assert again.text == "one two tree"


async def test_a_commit_that_replaces_the_text_is_recorded() -> None:
    recorder = Recorder(FakeTalk(), lambda: 1.0)
    await recorder.append("x")
    await recorder.commit("y")
    assert recorder.script.edits == (Edit(0.0, 0, "x"), Edit(0.0, 0, "y"))


async def test_a_recorder_begins_anew_behind_a_commit() -> None:
    recorder = Recorder(FakeTalk(), lambda: 5.0)
    await recorder.append("first")
    await recorder.commit()
    await recorder.append("second")
    assert recorder.script == EditScript((Edit(0.0, 0, "second"),))
