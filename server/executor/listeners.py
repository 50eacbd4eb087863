"""Whom a job serves, and how far it is ahead of them: playback clocks and reading speed. Pure.

A listener's buffer runs dry at a moment that is known; a reader takes in about 33 tokens a second at most
(30 ms a token, the default of Etalon's fluidity-index; Agrawal et al., 2024). A job that is more than
`AHEAD_S` ahead (`READ_AHEAD_S` of a reader) need not be hurried until only `BACK_S` are left: between the
two lies room for others, and several chunks in one go rather than one at a time. A reader's are shorter,
since tokens are batched: streams that wait for each other share their slices.
"""

from __future__ import annotations

import math

from pipelines.contract import Job

AHEAD_S, READ_AHEAD_S = 0.3, 0.15
BACK_S, READ_BACK_S = 0.15, 0.08
TOKEN_S = 0.03


def played(job: Job, now_s: float, buffered_s: float) -> None:
    """The listener has so much audio left."""
    job.dry_s = now_s + buffered_s
    job.ahead_until_s = job.dry_s - BACK_S if buffered_s > AHEAD_S else -math.inf


def read(job: Job, now_s: float, tokens: int) -> None:
    """So many tokens more have been given to a reader."""
    job.dry_s = max(job.dry_s, now_s) + tokens * TOKEN_S
    if job.dry_s - now_s > READ_AHEAD_S:
        job.ahead_until_s = job.dry_s - READ_BACK_S
