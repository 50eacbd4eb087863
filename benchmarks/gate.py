"""The gate before a figure: what was recorded is done again without suspension, equal to the bit."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from pipelines.contract import Pipeline
from server.executor.recording import Recording, differences


def replayed(recorded: Recording, fresh: Mapping[str, Pipeline], what: str = "") -> int:
    """Ends the process where an emission differs, or where nothing was suspended, so that the replay would
    prove nothing. fresh: pipelines that have done nothing yet. Returns the suspensions."""
    wrong = differences(recorded.events, fresh)
    if wrong or not recorded.suspensions:
        sys.exit(f"replay{what}: {wrong} emissions differ, {recorded.suspensions} suspensions")
    return recorded.suspensions
