"""Answers that follow a JSON schema or a regular expression, by llguidance: which tokens may come next.

Rules
1. The ids that may come next are a mask over the vocabulary, applied before penalties, filters and noise, so
   the noise of an id is what it is without a constraint.
2. A matcher stands behind the answer's last token. It moves at a commit; looking at drafted tokens moves it
   and moves it back within one call.
3. An end token may come only where the answer is complete; an answer that cannot go on ends there.
4. JSON comes without optional white space: a model that likes spaces could go on with them for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from torch import Tensor

from pipelines.errors import InvalidRequest, Unsupported
from pipelines.limits import MAX_GRAMMAR_CHARS
from pipelines.messages import Sampling
from pipelines.text.grammar_limits import check_regex, check_schema
from pipelines.text.tokenizer import ChatTokenizer

_COMPACT: Any = {"whitespace_flexible": False}
# Compiled constraints a tenant (0.1 to 1 MB each), and tenants: a shared one would tell by its timing what
# others asked for.
_KEPT = 16
_TENANTS = 16
# A constraint comes from a client and is followed on the executor's thread: one that is too complex is
# refused, or fails its answer (at the worst after about 0.1 s). Errors do not repeat the answer.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=20_000,
    max_lexer_states=10_000,
    max_grammar_size=8_000,
    verbose_errors=False,
)


class Constraint:
    """What one answer must follow. Owner: the executor thread, through the job's state."""

    def __init__(self, matcher: LLMatcher, vocab: int, field: str) -> None:
        self._matcher = matcher
        self._vocab = vocab
        self.field = field

    def copy(self) -> Constraint:
        """Another one, at the same place."""
        return Constraint(self._matcher.deep_copy(), self._vocab, self.field)

    def restart(self) -> None:
        """The answer begins again."""
        self._matcher.reset()

    def valid(self, tokens: Sequence[int]) -> int:
        """How many tokens at the beginning of these may come next."""
        return self._matcher.validate_tokens(list(tokens))

    def forced(self) -> list[int]:
        """Tokens without an alternative."""
        return self._matcher.compute_ff_tokens()

    def masks(self, draft: Sequence[int]) -> list[Tensor]:
        """Which ids may come next, and behind each token of the (valid) draft: bool `[vocab]`, on CPU."""
        masks = [self._mask()]
        for token in draft:
            self._matcher.consume_token(token)
            masks.append(self._mask())
        self._matcher.rollback(len(draft))
        return masks

    def consume(self, token: int) -> str:
        """One more token of the answer. Returns `error`."""
        self._matcher.consume_token(token)
        return self.error

    @property
    def error(self) -> str:
        """Why the constraint cannot be followed further, "" if it can: it may have become too complex. From
        then on nothing but the end may come next."""
        return _reason(self._matcher.get_error())

    @property
    def complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped()

    def _mask(self) -> Tensor:
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        bits = np.unpackbits(packed, count=self._vocab, bitorder="little")
        return torch.from_numpy(bits).bool()


class Constraints:
    """Compiles constraints for one model's vocabulary. Thread-safe: used off the executor thread."""

    def __init__(self, tokenizer: ChatTokenizer, vocab: int, eos: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._eos = sorted(eos)
        self._compiled = lru_cache(_TENANTS)(self._of_tenant)
        self._library_tokenizer = lru_cache(1)(self._make_tokenizer)

    def of(self, sampling: Sampling, tenant: str, scope: str = "") -> Constraint | None:
        """A fresh constraint, None where none is asked for. What was compiled before is taken up inside the
        tenant's scope only, and pushed out by the same tenant only or, as a whole, by more recent tenants.
        Raises: InvalidRequest naming field and reason, Unsupported where the model knows no end token."""
        if sampling.json_schema and sampling.regex:
            raise InvalidRequest("sampling.regex", "not together with json_schema")
        if not sampling.json_schema and not sampling.regex:
            return None
        return self._compiled(tenant)(scope, sampling.json_schema, sampling.regex).copy()

    def _of_tenant(self, tenant: str) -> Callable[[str, str, str], Constraint]:
        return lru_cache(_KEPT)(lambda scope, schema, regex: self._compile(schema, regex))

    def _compile(self, schema: str, regex: str) -> Constraint:
        field, text = ("sampling.json_schema", schema) if schema else ("sampling.regex", regex)
        if len(text) > MAX_GRAMMAR_CHARS:
            raise InvalidRequest(field, f"at most {MAX_GRAMMAR_CHARS} characters, got {len(text)}")
        if not self._eos:
            raise Unsupported(f"{field}: the model has no end token", field=field)
        try:
            grammar = (
                LLMatcher.grammar_from_json_schema(schema, overrides=_COMPACT)
                if schema
                else LLMatcher.grammar_from_regex(regex)
            )
        except ValueError as error:
            raise InvalidRequest(field, f"is no JSON object: {error}") from error
        if schema:
            check_schema(field, schema)
        else:
            check_regex(field, regex)
        tokenizer = self._library_tokenizer()
        wrong = LLMatcher.validate_grammar(grammar, tokenizer, limits=_LIMITS)
        if wrong:
            raise InvalidRequest(field, _reason(wrong))
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
        for _ in range(2):  # what the first mask has made too large is noticed by the second
            first = matcher.deep_copy()
            first.compute_bitmask()
            if first.is_error():
                raise InvalidRequest(field, _reason(first.get_error()))
        return Constraint(matcher, self._vocab, field)

    def _make_tokenizer(self) -> LLTokenizer:
        words = TokenizerWrapper(_Words(self._tokenizer, self._vocab, self._eos[0]))
        return LLTokenizer(words, n_vocab=self._vocab, eos_token=self._eos)


def _reason(error: str) -> str:
    """The library's message on one short line, without the sign that it leaves the answer out."""
    return " ".join(error.replace("<non-verbose/>", "").split())[:300]


class _Words:
    """The vocabulary as the library wants it: bytes by id; ids without bytes are special."""

    bos_token_id = None

    def __init__(self, tokenizer: ChatTokenizer, vocab: int, eos: int) -> None:
        self.eos_token_id = eos
        self.tokens = [tokenizer.content(i) or f"<|{i}|>".encode() for i in range(vocab)]
        self.special_token_ids = [i for i in range(vocab) if not tokenizer.content(i)]
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode()).ids
