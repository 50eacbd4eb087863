"""Edit scripts: how a prompt came to be, keystroke by keystroke. Made, recorded, kept as a file, replayed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

LETTERS = "etaoinshrdlu"


class Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At `at_ms` from the start the prompt from `from_char` on becomes `text`."""

    at_ms: Annotated[float, msgspec.Meta(ge=0.0)]
    from_char: Annotated[int, msgspec.Meta(ge=0)]
    text: str


@dataclass(frozen=True, slots=True)
class EditScript:
    """Edits in order of time; the commit comes with the last one."""

    edits: tuple[Edit, ...]

    @property
    def text(self) -> str:
        """The prompt at its commit."""
        return prompt_after(self.edits)

    @property
    def end_ms(self) -> float:
        return self.edits[-1].at_ms if self.edits else 0.0

    def save(self, path: Path) -> None:
        """One edit a line, as JSON."""
        path.write_bytes(b"".join(msgspec.json.encode(edit) + b"\n" for edit in self.edits))

    @classmethod
    def load(cls, path: Path) -> EditScript:
        """Raises: ValueError naming the line that is no edit, or the file where there is none; OSError."""
        edits: list[Edit] = []
        length = 0
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                edit = msgspec.json.decode(line, type=Edit)
                if edit.from_char > length or edit.at_ms < (edits[-1].at_ms if edits else 0.0):
                    raise ValueError("from_char lies behind the prompt, or time goes back")
                length = edit.from_char + len(edit.text)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            edits.append(edit)
        if not edits:
            raise ValueError(f"{path}: there is no edit in it")
        return cls(tuple(edits))


class Prompting(Protocol):
    """Where edits go: `Talk` is one."""

    async def append(self, text: str) -> None: ...

    async def revise(self, from_char: int, text: str) -> None: ...

    async def commit(self, text: str | None = None) -> None: ...


class Recorder:
    """Passes edits on to a conversation and keeps them. clock: seconds."""

    def __init__(self, talk: Prompting, clock: Callable[[], float]) -> None:
        self._talk = talk
        self._clock = clock
        self._began_s: float | None = None
        self._length = 0
        self._ended = False
        self._edits: list[Edit] = []

    @property
    def script(self) -> EditScript:
        """Of the latest prompt."""
        return EditScript(tuple(self._edits))

    async def append(self, text: str) -> None:
        self._keep(None, text)
        await self._talk.append(text)

    async def revise(self, from_char: int, text: str) -> None:
        self._keep(from_char, text)
        await self._talk.revise(from_char, text)

    async def commit(self, text: str | None = None) -> None:
        """Ends the prompt; a text that replaces it is kept as its last edit."""
        if text is not None:
            self._keep(0, text)
        self._ended = True
        await self._talk.commit(text)

    def _keep(self, from_char: int | None, text: str) -> None:
        """from_char None: at the end."""
        now_s = self._clock()
        if self._ended:
            self._edits, self._length, self._began_s, self._ended = [], 0, None, False
        if self._began_s is None:
            self._began_s = now_s
        at = self._length if from_char is None else from_char
        self._edits.append(Edit(1000.0 * (now_s - self._began_s), at, text))
        self._length = at + len(text)


async def replay(talk: Prompting, script: EditScript, speed: float = 1.0) -> None:
    """Sends the edits at their times (`speed` times as fast), the commit right behind the last one."""
    began_s = asyncio.get_running_loop().time()
    length = 0
    for edit in script.edits:
        due_s = began_s + edit.at_ms / 1000.0 / speed
        await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
        if edit.from_char == length:
            await talk.append(edit.text)
        else:
            await talk.revise(edit.from_char, edit.text)
        length = edit.from_char + len(edit.text)
    await talk.commit()


def prompt_after(edits: Iterable[Edit]) -> str:
    """What the edits make."""
    text = ""
    for edit in edits:
        text = text[: edit.from_char] + edit.text
    return text


def typed(text: str, chars_per_minute: float, revision_rate: float = 0.0, seed: int = 0) -> EditScript:
    """`text` typed letter by letter. revision_rate: the share of words (but the last) that are first typed
    with a wrong letter, noticed up to four keystrokes after their end, taken back one keystroke a letter,
    and typed again."""
    rng, keys = random.Random(f"{seed}/{text}"), _Keys(60_000.0 / chars_per_minute)
    words = text.split(" ")
    for number, word in enumerate(words):
        space = " " if number + 1 < len(words) else ""
        if space and len(word) > 1 and rng.random() < revision_rate:
            place = rng.randrange(len(word))
            wrong = word[:place] + rng.choice(LETTERS) + word[place + 1 :]
            ahead = " ".join(words[number + 1 :])[: rng.randrange(4)]
            keys.type(wrong + " " + ahead)
            keys.take_back(len(wrong) - place + 1 + len(ahead))
            keys.type(word[place:] + space)
        else:
            keys.type(word + space)
    return EditScript(tuple(keys.edits))


def spoken(
    text: str, words_per_minute: float = 160.0, revision_rate: float = 0.0, seed: int = 0, held: int = 1
) -> EditScript:
    """`text` as a recogniser would show it: every 300 ms the words so far but the last `held`; a share
    `revision_rate` of the words is first heard as another one and put right by the next transcript."""
    rng = random.Random(f"{seed}/{text}")
    words = text.split(" ")
    misheard = [rng.random() < revision_rate for _ in words]
    edits: list[Edit] = []
    shown, step_ms = "", 300.0
    total_ms = 60_000.0 * len(words) / words_per_minute
    for number in range(1, int(total_ms / step_ms) + 1):
        heard = int(number * step_ms / total_ms * len(words)) - held
        now = [
            rng.choice(words) if misheard[i] and i == heard - 1 else words[i] for i in range(max(0, heard))
        ]
        text_now = " ".join(now)
        if text_now != shown:
            edits.append(_difference(number * step_ms, shown, text_now))
            shown = text_now
    edits.append(_difference(total_ms, shown, text))
    return EditScript(tuple(edits))


class _Keys:
    """Keystrokes at an even pace."""

    def __init__(self, pace_ms: float) -> None:
        self.edits: list[Edit] = []
        self._pace_ms = pace_ms
        self._at_ms = 0.0
        self._length = 0

    def type(self, letters: str) -> None:
        for letter in letters:
            self._stroke(self._length, letter)

    def take_back(self, count: int) -> None:
        for _ in range(count):
            self._stroke(self._length - 1, "")

    def _stroke(self, from_char: int, text: str) -> None:
        self.edits.append(Edit(self._at_ms, from_char, text))
        self._at_ms += self._pace_ms
        self._length = from_char + len(text)


def _difference(at_ms: float, before: str, after: str) -> Edit:
    """The edit that makes `after` of `before`."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    return Edit(at_ms, same, after[same:])
