"""What a slice's end does to one row: KV and token become durable, and the client's chunks come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kernels import Drawn
from pipelines.contract import Emitted
from pipelines.messages import Done, Failed, FinishReason, TokenChunk
from pipelines.text.prefix_index import PrefixIndex
from pipelines.text.speculation.verifier import accepted
from pipelines.text.state import TextState
from pipelines.text.stream import Piece
from pipelines.text.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Committer:
    """Knows what ends an answer: end tokens, stop strings, the job's limit, the context (tokens)."""

    model: str
    tokenizer: ChatTokenizer
    eos: frozenset[int]
    context: int
    index: PrefixIndex | None

    def commit(
        self, state: TextState, count: int, draft: Sequence[int], drawn: Sequence[Drawn], given: int = 0
    ) -> list[Emitted]:
        """Make the KV of `count` known tokens and the drawn tokens that count durable; returns what the
        client gets. What ends the answer may come at any of them; the rest is dropped. given: how many tokens
        of the draft an earlier answer had.

        Masked attention still spreads a NaN that a draft has caused to the tokens before it (0 * NaN), so
        where drafts were checked nothing of such a slice counts: the row runs again without drafts."""
        right = accepted(draft, drawn)
        state.doubted = bool(draft) and not all(token.finite for token in drawn[: right + 1])
        if state.doubted:
            return []
        state.table.append(count)
        state.drafted += len(draft)
        if drawn and drawn[0].finite:
            state.sound = state.table.length
            if self.index is not None and state.final and not state.drawn:
                state.publish(self.index, state.table.length)
        said = Piece()
        for place, token in enumerate(drawn[: right + 1]):
            if not token.finite:
                state.finished = state.broken = True
                broken = Failed("ModelBroken", f"{self.model}: the model computed NaN for this prompt")
                return [*self._chunks(state, said), broken]
            if place:
                state.table.append(1)
            state.accepted += place < right
            state.account(again=place < min(given, right))
            piece, reason = self._say(state, token)
            said = _joined(said, piece)
            if state.constraint is not None:
                ends = token.id in self.eos
                wrong = state.constraint.error if ends else state.constraint.consume(token.id)
                if wrong:
                    state.finished = True
                    failed = Failed("InvalidRequest", wrong, state.constraint.field)
                    return [*self._chunks(state, said), failed]
                if not ends and state.constraint.complete:
                    said, reason = _joined(said, state.stream.finish()), FinishReason.STOP
            if reason is not None:
                state.ending = reason
                return [*self._chunks(state, said), *(self.end(state) if state.final else ())]
        return self._chunks(state, said)

    def end(self, state: TextState) -> list[Emitted]:
        """The last chunk of an answer that has ended, which is said after the commit only."""
        assert state.ending is not None
        state.finished = True
        return [Done(state.ending, state.usage())]

    def _say(self, state: TextState, token: Drawn) -> tuple[Piece, FinishReason | None]:
        """One more token of the answer: what becomes final by it, and why the answer ends with it."""
        state.tokens.append(token.id)
        if token.id in self.eos:
            return state.stream.finish(), FinishReason.STOP
        piece = state.stream.push(token, self.tokenizer.content(token.id))
        if piece.stopped:
            return piece, FinishReason.STOP
        limit = state.reached_limit(self.context)
        if limit is None:
            return piece, None
        rest = state.stream.finish()
        reason = FinishReason.STOP if rest.stopped else limit
        return _joined(piece, rest), reason

    def _chunks(self, state: TextState, piece: Piece) -> list[Emitted]:
        """One chunk, or none where everything is held back."""
        if not piece.text and not piece.tokens:
            return []
        ids = tuple(token.id for token in piece.tokens)
        if not state.sampling.logprobs:
            return [TokenChunk(piece.text, ids, state.revision, wasted=state.wasted)]
        logprobs = tuple(token.logprob for token in piece.tokens)
        top = tuple(tuple((self._text(i), log) for i, log in token.top) for token in piece.tokens)
        return [TokenChunk(piece.text, ids, state.revision, logprobs, top, state.wasted)]

    def _text(self, token: int) -> str:
        return self.tokenizer.content(token).decode(errors="replace")


def _joined(first: Piece, then: Piece) -> Piece:
    return Piece(first.text + then.text, first.tokens + then.tokens)
