"""ConverseStart's settings for work before the commit, from the wire to the plan."""

from __future__ import annotations

from upbeat.v1 import gateway_pb2, types_pb2

from pipelines.errors import InvalidRequest
from pipelines.simultaneous.policies import DEFAULT, DEFAULT_SEGMENTER, everything, policy, segments_of
from server.gateway import Gateway
from server.plan import Ahead, Mode
from server.services import fields

MODE = "start.partial_prompt_mode"
POLICY = "start.partial_prompt_policy"


def ahead(gateway: Gateway, start: gateway_pb2.ConverseStart) -> Ahead:
    """Raises: InvalidRequest, NotFound."""
    asked = fields.known(start.partial_prompt_mode, MODE, types_pb2.PartialPromptMode)
    mode = Mode(asked - 1) if asked else Mode.PREFILL
    _needs(mode, Mode.PREFILL, start.partial_prompt_policy, POLICY)
    _needs(mode, Mode.ANSWER_AHEAD, start.emit_before_commit, "start.emit_before_commit")
    _needs(mode, Mode.THINK_AHEAD, start.thoughts, "start.thoughts")
    _needs(mode, Mode.THINK_AHEAD, start.models.thinker, "start.models.thinker")
    chosen = start.partial_prompt_policy
    if mode >= Mode.THINK_AHEAD:
        name = start.models.thinker
        return Ahead(
            mode=mode,
            segmenter=segments_of(chosen or DEFAULT_SEGMENTER, POLICY),
            thinker=gateway.model("text", name, "start.models.thinker") if name else None,
            thoughts=start.thoughts,
            emit_before_commit=start.emit_before_commit,
        )
    usual = policy(DEFAULT, POLICY) if mode >= Mode.ANSWER_AHEAD else everything
    return Ahead(
        mode=mode,
        policy=policy(chosen, POLICY) if chosen else usual,
        emit_before_commit=start.emit_before_commit,
    )


def _needs(mode: Mode, least: Mode, wanted: object, field: str) -> None:
    if wanted and mode < least:
        raise InvalidRequest(field, f"needs {MODE} {least.name} or more, not {mode.name}")
