"""A text job's durable state: it changes at a commit, or between slices by `update`, `evict`, `release`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from kernels import RowSampling
from pipelines.errors import WrongState
from pipelines.limits import COLDEST
from pipelines.messages import FinishReason, Sampling, Usage
from pipelines.simultaneous.alignment import common_prefix, next_draft
from pipelines.text.constraint import Constraint
from pipelines.text.kv_cache import BLOCK, BlockTable
from pipelines.text.prefix_index import PrefixIndex, next_key
from pipelines.text.requests import PreparedPrompt
from pipelines.text.speculation.copying import CopyFromContext
from pipelines.text.speculation.drafters import JobDrafters
from pipelines.text.speculation.model_drafter import DraftRow
from pipelines.text.stream import TextStream
from pipelines.text.swap import Moved


@dataclass(slots=True)
class TextState:
    """Owner: the executor thread.

    tokens: the prompt as far as it is known, then the answer. The KV of the first `cached` of them is in
    the table, or after an eviction in host memory (`moved`); the rest is to be computed. keys: the
    tenant's root and the keys of those full blocks that the prefix index knows. final: the prompt is
    committed. ahead: before that, how many tokens of an answer to it as it stands may be generated.
    ending: why the answer ends, as long as nobody may be told. early: tokens generated ahead, not those
    that a revision took over; kept: those that the committed answer took over. draft: what is known of the
    answer from earlier revisions. sound: a token drawn behind so many was finite. broken: the model computed
    NaN, so nobody may use this KV. doubted: it computed NaN where drafts were checked, so the row runs
    without any. given: tokens that the answer may
    resemble. drafters: follow the tokens, from the first drawn one on; copying outlives revisions.
    draft_row: the small model's, where there is one.
    """

    sampling: Sampling
    table: BlockTable
    stream: TextStream
    keys: list[bytes] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    prompt_length: int = 0
    revision: int = 0
    final: bool = False
    ahead: int = 0
    ending: FinishReason | None = None
    early: int = 0
    kept: int = 0
    draft: list[int] = field(default_factory=list)
    finished: bool = False
    sound: int = 0
    broken: bool = False
    doubted: bool = False
    reused: int = 0
    rolled_back: int = 0
    given: tuple[int, ...] = ()
    drafters: JobDrafters | None = None
    copying: CopyFromContext | None = None
    draft_row: DraftRow | None = None
    constraint: Constraint | None = None
    moved: Moved | None = None
    drafted: int = 0
    accepted: int = 0

    @property
    def cached(self) -> int:
        """Tokens whose KV is there, wherever it lies."""
        return self.table.length if self.moved is None else self.moved.tokens

    @property
    def pending(self) -> int:
        """Known tokens whose KV is not cached."""
        return len(self.tokens) - self.cached

    @property
    def drawn(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_length

    @property
    def answers(self) -> bool:
        """Whether tokens are drawn: the prompt is committed, or is answered as it stands."""
        return self.final or self.ahead > 0

    @property
    def ready(self) -> bool:
        """Whether there is something to compute or to say."""
        if self.finished or self.ending is not None:
            return self.final and not self.finished
        return self.pending > 0 and (self.final or not 0 < self.ahead <= self.drawn)

    def revise(self, prompt: PreparedPrompt) -> None:
        """Take over a revision: keep the KV of the common beginning, forget the rest; an answer ahead becomes
        the draft of the next. The commit of what is being answered changes nothing but that it may be said.

        Raises: WrongState after the final one.
        """
        if self.final:
            raise WrongState("the prompt is committed; it cannot be revised", field="revise")
        self.final = prompt.final
        if prompt.final and self.ahead and prompt.number == self.revision:
            self.drafted = self.accepted = self.kept = self.drawn
            return
        ids = list(prompt.ids)
        self._crop(ids, answered=bool(prompt.final or prompt.ahead))
        self.draft = next_draft(self.tokens[self.prompt_length :], self.draft)
        if self.drawn:
            self.stream = self.stream.fresh()
            if self.constraint is not None:
                self.constraint.restart()
        if prompt.final:
            self.drafted = self.accepted = 0
        self.tokens = ids
        self.prompt_length = len(self.tokens)
        self.revision, self.ahead, self.ending = prompt.number, prompt.ahead, None
        self.expect(self.draft)

    def _crop(self, ids: list[int], answered: bool) -> None:
        cached = self.cached
        common = common_prefix(self.tokens[:cached], ids)
        if self.copying is not None:
            self.copying.rewind(common)
        self.rolled_back += max(0, min(cached, self.prompt_length) - common)
        # The last prompt token is computed again even where its KV exists: the answer needs its logits.
        left = min(common, len(ids) - 1) if answered else common
        self.sound = min(self.sound, left)
        if self.moved is not None:
            self.moved = self.moved.cropped(left)
        else:
            self.table.crop(left)
        del self.keys[1 + self.table.length // BLOCK :]

    def adopt(self, index: PrefixIndex) -> None:
        """Take KV that other jobs of the tenant have computed, but leave the last token to be computed."""
        start = self.table.length
        if self.moved is not None or start % BLOCK or len(self.keys) != 1 + start // BLOCK:
            return
        for key, block in index.match(self.keys[-1], self.tokens[start:-1]):
            self.table.adopt(block)
            self.keys.append(key)

    def publish(self, index: PrefixIndex, tokens: int) -> None:
        """Let other jobs of the tenant use the KV of at most the first so many tokens."""
        blocks = self.table.blocks
        chain: list[tuple[bytes, int]] = []
        for number in range(len(self.keys) - 1, min(tokens, self.table.length) // BLOCK):
            content = self.tokens[number * BLOCK : (number + 1) * BLOCK]
            self.keys.append(next_key(self.keys[-1], content))
            chain.append((self.keys[-1], blocks[number]))
        index.publish(chain)

    def evict(self, moved: Moved | None) -> None:
        """Free the table. What was moved before an eviction stays moved; what was not is computed again from
        the tokens."""
        self.table.free()
        del self.keys[1:]
        if self.draft_row is not None:
            self.draft_row.free()
        self.moved = moved or self.moved

    def restored(self, tokens: int) -> None:
        """The table holds again what was moved."""
        self.table.append(tokens)
        self.moved = None

    def expect(self, answer: Sequence[int]) -> None:
        """The answer's tokens, from its first on, may be these or resemble them: they become its draft."""
        self.given = tuple(answer)
        self.drafters = None

    @property
    def wasted(self) -> int:
        """Tokens generated ahead that the committed answer, as far as it goes, does not have."""
        return max(0, self.early - self.kept)

    def account(self, again: bool) -> None:
        """A token has been said. again: an earlier answer had it, and it was checked instead of generated."""
        if self.final:
            self.kept += again
        else:
            self.early += not again

    def row_sampling(self, draft: Sequence[int] = (), allowed: Tensor | None = None) -> RowSampling:
        """How the token behind the known ones, and behind `draft`, is drawn; `allowed`: which ids may be."""
        asked = self.sampling
        counted = asked.presence_penalty or asked.frequency_penalty
        repeated = counted or asked.repetition_penalty != 1.0
        seen = [*self.tokens, *draft] if repeated else ()
        return RowSampling(
            position=len(self.tokens) + len(draft),
            seed=asked.seed,
            temperature=asked.temperature if asked.temperature >= COLDEST else 0.0,
            top_k=asked.top_k,
            top_p=asked.top_p,
            min_p=asked.min_p,
            repetition_penalty=asked.repetition_penalty,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            seen=seen,
            generated=seen[self.prompt_length :] if counted else (),
            logprobs=asked.logprobs or -1,
            allowed=allowed,
        )

    def reached_limit(self, context: int) -> FinishReason | None:
        """LENGTH where no further token may be drawn."""
        if self.drawn >= self.sampling.max_tokens or len(self.tokens) >= context:
            return FinishReason.LENGTH
        return None

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_length,
            completion_tokens=self.drawn,
            reused_tokens=self.reused,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            rolled_back_tokens=self.rolled_back,
            wasted_tokens=self.wasted,
        )
