"""The executor's one broad except: what pipelines may raise becomes an error with a meaning."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from pipelines.contract import Pressure
from pipelines.errors import ModelBroken, UpbeatError

logger = logging.getLogger("upbeat.executor")
T = TypeVar("T")


def guarded(what: str, call: Callable[[], T]) -> T:
    """Runs pipeline code for one request or slice.

    Raises: UpbeatError, Pressure and StopIteration as they come; anything else is logged and raised as
    ModelBroken, so that it ends what caused it and nothing more.
    """
    try:
        return call()
    except (UpbeatError, Pressure, StopIteration):
        raise
    except Exception as error:
        logger.exception("%s failed", what)
        raise ModelBroken("the model failed on this request, see the server's log") from error


def end_process_with_threads() -> None:
    """From now on an exception that ends a thread ends the process: a device that has lost its executor or
    its uplink must not look healthy. The gateway starts another."""

    def end(args: threading.ExceptHookArgs) -> None:
        logger.critical("a thread of the device process has failed", exc_info=args.exc_value)
        os._exit(3)

    threading.excepthook = end
