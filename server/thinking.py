"""Thinking ahead: the model's notes on the complete segments of a prompt that is not committed.

Rules (LiveMind; Chen et al., 2024)
1. One thought at a time, over all complete segments that have no note yet; the last segment is withheld.
2. A note holds while the text of its piece stands; where a piece changes, its note and all behind it go.
3. The commit drops a thought that still runs: the answer never waits for one.
4. Thoughts are work ahead: they rank and are budgeted as such; one that fails ends thinking for this turn.
Owner: the turn's answer. What a note says depends on which thoughts ended in time, so the answer does too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipelines.errors import UpbeatError
from pipelines.messages import Done, Message, ModelInfo, PromptRevision, Sampling, TextRequest
from pipelines.simultaneous import layout
from pipelines.simultaneous.layout import Note
from pipelines.simultaneous.segments import complete
from server.desk import Desk
from server.lanes import Lane
from server.thought_lane import ThoughtLane
from server.turn import Turn

THOUGHT_TOKENS = 64
FEWEST_TOKENS = 8


class Thinking:
    """One turn's. history: what goes before the prompt. noted(): there is one more note."""

    def __init__(
        self,
        desk: Desk,
        turn: Turn,
        model: ModelInfo,
        history: tuple[Message, ...],
        noted: Callable[[], None],
    ) -> None:
        self.notes: tuple[Note, ...] = ()
        self._desk = desk
        self._turn = turn
        self._model = model
        self._history = history
        self._noted = noted
        self._costs: list[int] = []
        self._lane: ThoughtLane | None = None
        self._given_up = False

    @property
    def could_answer(self) -> bool:
        """Whether the model's last note was an answer."""
        return bool(self.notes) and self.notes[-1].action == layout.ANSWER

    def revise(self, text: str, revision: int) -> None:
        """The prompt stands like this."""
        whole = self.hold(text)
        start = sum(len(note.piece) for note in self.notes)
        if self._lane is not None:
            if whole.startswith(self._lane.piece, start):
                return
            self.stop()
        if whole[start:].strip() and not self._given_up:
            self._think(whole[start:], revision)

    def hold(self, text: str) -> str:
        """Keeps the notes that hold for this text; returns its complete segments."""
        whole = complete(self._desk.plan.ahead.segmenter, text)
        self._keep(layout.holding(self.notes, whole))
        return whole

    def stop(self) -> None:
        """The thought that runs is dropped."""
        lane, self._lane = self._lane, None
        if lane is not None:
            self._turn.drop(lane)

    def failed(self, lane: Lane) -> bool:
        """Whether the lane that failed was a thought."""
        if lane is not self._lane:
            return False
        self._lane, self._given_up = None, True
        return True

    def _keep(self, notes: tuple[Note, ...]) -> None:
        self._turn.outcome.waste(sum(self._costs[len(notes) :]))
        del self._costs[len(notes) :]
        self._turn.outcome.notes = sum(self._costs)
        self.notes = notes

    def _think(self, piece: str, revision: int) -> None:
        desk = self._desk
        tokens = desk.grant(self._model, THOUGHT_TOKENS)
        if tokens < FEWEST_TOKENS:
            return
        history = (*self._history, *layout.noted(self.notes))
        sampling = Sampling(max_tokens=tokens, seed=desk.plan.sampling.seed)
        request = TextRequest(history, sampling, desk.plan.cache_scope)
        order = replace(
            desk.order(self._turn.turn_id, self._model, desk.plan.job_class, request),
            first=PromptRevision(1, layout.more(piece), final=True),
            committed=False,
        )
        try:
            work = desk.dispatcher.submit(order)
        except UpbeatError:
            self._given_up = True
            return
        self._lane = ThoughtLane(work, piece, revision, self._thought, desk.plan.ahead.thoughts)
        self._turn.add(self._lane)

    def _thought(self, lane: ThoughtLane, done: Done) -> None:
        self._lane = None
        self._desk.allowance.charge(lane.wasted, self._desk.clock.now())
        self._costs.append(done.usage.completion_tokens or lane.wasted)
        self._turn.outcome.notes = sum(self._costs)
        self.notes = (*self.notes, Note(lane.piece, lane.text.strip() or layout.reply(layout.WAIT)))
        self._noted()
