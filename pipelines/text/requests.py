"""Checks of what a client may ask of a text model, and what the host prepares off the executor thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import InvalidRequest
from pipelines.limits import MAX_LOGPROBS, MAX_STOP_CHARS, MAX_STOPS, REPETITION_LIMITS
from pipelines.messages import Message, PromptRevision, Sampling, TextRequest
from pipelines.text.constraint import Constraint
from pipelines.text.encoding import Encoded
from pipelines.text.tokenizer import ChatTokenizer

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """One revision as token ids; without what may still change, where it is neither final nor to be answered.

    ahead: how many tokens of an answer may be generated before the commit. encoded: what the next revision
    need not encode again.
    """

    number: int
    ids: Sequence[int]
    final: bool
    ahead: int = 0
    encoded: Encoded | None = None


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A checked request. constraint: to be copied by each job that follows it."""

    request: TextRequest
    constraint: Constraint | None = None


def check_request(request: TextRequest, vocab: int, context: int) -> None:
    """Raises: InvalidRequest naming field and limit."""
    for place, message in enumerate(request.history):
        if message.role not in ROLES:
            raise InvalidRequest(f"history[{place}].role", f"must be one of {', '.join(ROLES)}")
    check_sampling(request.sampling, vocab, context)


def check_sampling(sampling: Sampling, vocab: int, context: int) -> None:
    """Raises: InvalidRequest naming field and limit."""
    _between("temperature", sampling.temperature, 0.0, 2.0)
    _between("top_p", sampling.top_p, 0.0, 1.0, above=True)
    _between("top_k", sampling.top_k, 0, vocab)
    _between("min_p", sampling.min_p, 0.0, 1.0)
    _between("repetition_penalty", sampling.repetition_penalty, *REPETITION_LIMITS)
    _between("presence_penalty", sampling.presence_penalty, -2.0, 2.0)
    _between("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)
    _between("max_tokens", sampling.max_tokens, 1, context)
    _between("logprobs", sampling.logprobs, 0, MAX_LOGPROBS)
    if len(sampling.stop) > MAX_STOPS:
        raise InvalidRequest("sampling.stop", f"at most {MAX_STOPS} strings, got {len(sampling.stop)}")
    for stop in sampling.stop:
        if not 1 <= len(stop) <= MAX_STOP_CHARS:
            raise InvalidRequest(
                "sampling.stop", f"each has 1 to {MAX_STOP_CHARS} characters, got {len(stop)}"
            )


def _between(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    if not math.isfinite(value) or value > high or value < low or (above and value == low):
        limit = f"above {low} and at most {high}" if above else f"from {low} to {high}"
        raise InvalidRequest(f"sampling.{name}", f"must be {limit}, got {value}")


def prepare_prompt(
    tokenizer: ChatTokenizer,
    request: TextRequest,
    revision: PromptRevision,
    context: int,
    known: Encoded | None = None,
) -> PreparedPrompt:
    """The revision in the model's chat template, tokenised. known: the revision before it.

    Raises: InvalidRequest for an empty final prompt, and for one that leaves no room for an answer.
    """
    if revision.final and not revision.text.strip():
        raise InvalidRequest("prompt", "is empty")
    before = (*request.history, *revision.notes)
    if len(before) >= context:  # each takes a token at least; rendering so many would hold up everybody
        raise InvalidRequest("history", f"{len(before)} messages are more than {context} tokens can hold")
    characters = len(revision.text) + sum(len(message.content) for message in before)
    if not tokenizer.fits(characters, context):
        raise InvalidRequest("prompt", f"{characters} characters are more than {context} tokens can hold")
    messages = [*before, Message("user", revision.text)]
    if not revision.final and not revision.answer_tokens:
        encoded, kept = tokenizer.encode_open(messages, known)
        return PreparedPrompt(revision.number, encoded.ids[: min(kept, context - 1)], False, 0, encoded)
    encoded = tokenizer.encode(tokenizer.render(messages), known)
    count = len(encoded.ids)
    if count >= context:
        raise InvalidRequest("prompt", f"{count} tokens with its history; the limit is {context - 1}")
    return PreparedPrompt(revision.number, encoded.ids, revision.final, revision.answer_tokens, encoded)
