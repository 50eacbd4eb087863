"""One JSON line for each event worth a line: an RPC's end, the server's own changes. None for a token."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import TextIO

LOGGER = logging.getLogger("upbeat")


class JsonLines(logging.Formatter):
    """time, level, event, then the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname,
            "event": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Log to `stream` from now on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(level)
    LOGGER.propagate = False


def log(event: str, fields: Mapping[str, object], level: int = logging.INFO) -> None:
    """One line; `fields` become its keys."""
    LOGGER.log(level, event, extra={"fields": dict(fields)})
