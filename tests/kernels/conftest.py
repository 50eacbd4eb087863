"""Triton decides at its first import whether it interprets, for the whole process: the tests in
`interpreted` run in a process of their own, which `test_interpreted.py` starts. Alone: TRITON_INTERPRET=1
pytest FOLDER."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
