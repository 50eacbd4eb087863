"""What goes to the device of a prompt that is not committed: how much of it, when, and with what notes.

Rules
1. The policy decides how much of the prompt is worth computing and whether an answer to it is. What it
   advises is sent once: nothing is sent while the advice stays the same.
2. Revisions are numbered as they are sent. A commit of exactly what is being answered keeps the number: that
   answer goes on. Any other begins afresh under a new number.
3. Bursts are coalesced: the longer the prompt, the longer the pause between two revisions, so that a session
   takes at most about a twentieth of the thread that prepares them. What a revision changes is charged to
   the allowance, and the next one waits until that is out of debt.
4. Where the speaker of a spoken prompt has fallen silent, all of it is worth an answer, whatever the policy.
Owner: the turn. No waiting; time is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from pipelines.messages import Message, PromptRevision
from pipelines.simultaneous import layout
from pipelines.simultaneous.alignment import common_prefix
from pipelines.simultaneous.layout import Note
from pipelines.simultaneous.policies import Advice, Partial, Policy
from server.allowance import Allowance
from server.prompt import Prompt

TICK_S = 0.005
# Twenty times what rendering and tokenising a character costs.
TICK_PER_CHAR_S = 20e-6

Grant = Callable[[], int]


class Foresight:
    """One turn's. grant(): how many tokens of an answer may be generated ahead now. history_chars: what is
    prepared with each revision."""

    def __init__(self, prompt: Prompt, policy: Policy, grant: Grant, allowance: Allowance) -> None:
        self.number = 0
        self.history_chars = 0
        self.again_s = math.inf
        self._prompt = prompt
        self._policy = policy
        self._grant = grant
        self._allowance = allowance
        self._changed_s = 0.0
        self._paused = False
        self._text = self._before = ""
        self._sent: PromptRevision | None = None

    @property
    def tick_s(self) -> float:
        """How long to gather edits."""
        return max(TICK_S, TICK_PER_CHAR_S * (self.history_chars + len(self._prompt.text)))

    def edited(self, now_s: float, paused: bool = False) -> None:
        """The prompt has changed; `paused`: or its speaker has fallen silent."""
        self._changed_s, self._paused = now_s, paused

    def partial(self, now_s: float) -> Partial:
        """What the policies see."""
        text = self._prompt.text
        if text != self._text:
            self._before, self._text = self._text, text
        return Partial(text, self._before, 1000.0 * (now_s - self._changed_s))

    def revision(self, notes: tuple[Note, ...], now_s: float) -> PromptRevision | None:
        """What is to be sent now; `again_s` then says in how long to ask again, inf for never."""
        partial = self.partial(now_s)
        advice = Advice(len(partial.text), answer=True) if self._paused else self._policy(partial)
        self.again_s = advice.again_ms / 1000.0
        start = sum(len(note.piece) for note in notes)
        kept = partial.text[start : advice.keep]
        sent, said = self._sent, layout.noted(notes)
        if not kept.strip():
            return None
        known = sent is not None and (sent.text, sent.notes) == (kept, said)
        if known and (not advice.answer or (sent is not None and sent.answer_tokens)):
            return None
        wait_s = self._allowance.wait_s(now_s)
        if wait_s > 0:
            self.again_s = wait_s
            return None
        tokens = self._grant() if advice.answer else 0
        if known and not tokens:
            return None
        kept_chars = common_prefix(sent.text, kept) if sent is not None else 0
        self._allowance.charge_prompt(len(kept) - kept_chars, now_s)
        return self._number(kept, False, tokens, said)

    def final(self, notes: tuple[Note, ...]) -> PromptRevision:
        """The committed prompt."""
        text = self._prompt.text[sum(len(note.piece) for note in notes) :]
        said, sent = layout.noted(notes), self._sent
        if sent is not None and sent.answer_tokens and (sent.text, sent.notes) == (text, said):
            return msgspec.structs.replace(sent, final=True, answer_tokens=0)
        return self._number(text, True, 0, said)

    def forget(self) -> None:
        """What was sent is lost with its job."""
        self._sent = None

    def _number(self, text: str, final: bool, tokens: int, notes: tuple[Message, ...]) -> PromptRevision:
        self.number += 1
        self._sent = PromptRevision(self.number, text, final, tokens, notes)
        return self._sent
