"""Checks of request fields: each refusal names the field in wire notation and the limit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pipelines.errors import InvalidRequest, Unsupported
from pipelines.limits import SAMPLE_RATE_LIMITS


def number(message: Any, prefix: str, name: str, low: float, high: float, default: float) -> float:
    """An optional double in [low, high]; `default` if it is left out. Refuses NaN and infinities."""
    if not message.HasField(name):
        return default
    value: float = getattr(message, name)
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(prefix + name, f"must be {low:g} to {high:g}, not {value:g}")
    return value


def count(message: Any, prefix: str, name: str, low: int, high: int, default: int) -> int:
    """An optional integer in [low, high]; `default` if it is left out."""
    if not message.HasField(name):
        return default
    return within(getattr(message, name), prefix + name, low, high)


def within(value: int, field: str, low: int, high: int) -> int:
    """Raises: InvalidRequest."""
    if not low <= value <= high:
        raise InvalidRequest(field, f"must be {low} to {high}, not {value}")
    return value


def sample_rate(value: int, field: str) -> int:
    """Hz; 0 stands for a default."""
    low, high = SAMPLE_RATE_LIMITS
    if value and not low <= value <= high:
        raise InvalidRequest(field, f"must be {low} to {high} Hz, not {value}")
    return value


def one_of(value: str, field: str, allowed: Iterable[str]) -> str:
    """Raises: InvalidRequest naming what is allowed."""
    names = tuple(allowed)
    if value not in names:
        raise InvalidRequest(
            field, f"must be one of {', '.join(repr(name) for name in names)}, not {value!r}"
        )
    return value


def known(value: int, field: str, enum: Any) -> int:
    """A value of the wire's enum. Raises: InvalidRequest for a number it does not have."""
    if value not in enum.values():
        raise InvalidRequest(field, f"{value} is no value of {enum.DESCRIPTOR.name}")
    return value


def not_served(wanted: object, field: str, what: str) -> None:
    """Refuses a field that this server understands and does not offer, if it is set."""
    if wanted:
        raise Unsupported(f"{field}: {what}", field=field)


def text(value: str, field: str, most: int) -> str:
    """At most so many characters."""
    if len(value) > most:
        raise InvalidRequest(field, f"at most {most} characters, not {len(value)}")
    return value
