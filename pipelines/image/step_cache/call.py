"""What one call of the network carries beside its inputs: parts to leave out, parts to keep.

The network's submodules are wrapped once, at load (`shallow.py`, `text.py`), without a change to their code;
a wrapper asks `current()` what this call wants. A call lives in the context of the greenlet that runs it, so
calls that are suspended and interleaved never see each other, and a call without one is not affected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

Projections = dict[int, torch.Tensor]
"""Keys and values of one pass's text, by number of the projection: (1, tokens, width) each."""


@dataclass(slots=True, eq=False)
class Call:
    """One call over `inputs` rows, one for each pass. Owner: the slice that makes it.

    deep: what the deep part is to say, (inputs, ...); None runs it. seen_deep: what it said, kept if
    `keep_deep`. texts: what is known of each pass's text, None where it is new; new_texts: what was computed.
    first: what a transformer's first block has said, inside the call.
    """

    texts: tuple[Projections | None, ...]
    deep: torch.Tensor | None = None
    keep_deep: bool = False
    seen_deep: torch.Tensor | None = None
    new_texts: dict[int, torch.Tensor] = field(default_factory=dict)
    first: torch.Tensor | None = None

    @property
    def partial(self) -> bool:
        """Whether the deep part is left out."""
        return self.deep is not None


_CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)


def current() -> Call | None:
    """The call that is running here."""
    return _CURRENT.get()


@contextmanager
def carrying(call: Call) -> Iterator[Call]:
    """Calls of the network inside carry this one."""
    token = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(token)
