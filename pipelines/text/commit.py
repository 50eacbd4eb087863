"""What a slice's end does to one row: KV and token become durable, and the client's chunks come out."""

from __future__ import annotations

from dataclasses import dataclass

from kernels import Drawn
from pipelines.contract import Emitted
from pipelines.messages import Done, Failed, FinishReason, TokenChunk
from pipelines.text.prefix_index import PrefixIndex
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

    def commit(self, state: TextState, count: int, drawn: Drawn | None) -> list[Emitted]:
        """Make `count` new tokens' KV and the drawn token durable; returns what the client gets."""
        state.table.append(count)
        if drawn is None:
            return []
        if not drawn.finite:
            state.finished = state.broken = True
            return [Failed("ModelBroken", f"{self.model}: the model computed NaN for this prompt")]
        if self.index is not None and not state.drawn:
            state.publish(self.index)
        state.tokens.append(drawn.id)
        if drawn.id in self.eos:
            return self._finish(state, state.stream.finish(), FinishReason.STOP)
        piece = state.stream.push(drawn, self.tokenizer.content(drawn.id))
        if piece.stopped:
            return self._finish(state, piece, FinishReason.STOP)
        limit = state.reached_limit(self.context)
        if limit is None:
            return self._chunks(state, piece)
        rest = state.stream.finish()
        reason = FinishReason.STOP if rest.stopped else limit
        return self._finish(state, Piece(piece.text + rest.text, piece.tokens + rest.tokens), reason)

    def _finish(self, state: TextState, piece: Piece, reason: FinishReason) -> list[Emitted]:
        state.finished = True
        return [*self._chunks(state, piece), Done(reason, state.usage())]

    def _chunks(self, state: TextState, piece: Piece) -> list[Emitted]:
        """One chunk, or none where everything is held back."""
        if not piece.text and not piece.tokens:
            return []
        ids = tuple(token.id for token in piece.tokens)
        if not state.sampling.logprobs:
            return [TokenChunk(piece.text, ids, state.revision)]
        logprobs = tuple(token.logprob for token in piece.tokens)
        top = tuple(tuple((self._text(i), log) for i, log in token.top) for token in piece.tokens)
        return [TokenChunk(piece.text, ids, state.revision, logprobs, top)]

    def _text(self, token: int) -> str:
        return self.tokenizer.content(token).decode(errors="replace")
