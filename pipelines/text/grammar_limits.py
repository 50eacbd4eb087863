"""What a JSON schema or a regular expression may ask of its compiler.

The compiler's own limits count states and symbols. Two kinds of work pass beneath them: repetitions that may
be empty cost the square of their number, and a divisor costs a state for each of its remainders. Either could
keep the one thread that prepares everybody's requests for minutes. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pipelines.errors import InvalidRequest

MAX_REPETITIONS = 256
"""In all regular expressions of one request: at most about 0.1 s of compiling."""
MAX_DIVISOR = 10_000
"""The least common multiple of all divisors in a schema, without their decimal points: about 0.1 s."""

_MOST_DIGITS = 18
_REPETITION = re.compile(r"\\.|([*+?{])", re.DOTALL)


def check_regex(field: str, *patterns: str) -> None:
    """Raises: InvalidRequest."""
    count = sum(1 for pattern in patterns for found in _REPETITION.finditer(pattern) if found[1])
    if count > MAX_REPETITIONS:
        raise InvalidRequest(field, f"at most {MAX_REPETITIONS} repetitions (* + ? {{}}), not {count}")


def check_schema(field: str, schema: str) -> None:
    """`schema` is JSON, and no deeper than its compiler takes. Raises: InvalidRequest."""
    divisor, patterns = 1, list[str]()
    for key, value in _members(json.loads(schema, parse_float=Decimal)):
        if key == "pattern" and isinstance(value, str):
            patterns.append(value)
        elif key == "patternProperties" and isinstance(value, dict):
            patterns += value
        elif key == "multipleOf" and isinstance(value, int | Decimal):
            divisor = math.lcm(divisor, _digits(value))
            if divisor > MAX_DIVISOR:
                raise InvalidRequest(field, f"multipleOf: all together at most {MAX_DIVISOR}, not {value}")
    check_regex(field, *patterns)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of the objects inside."""
    if isinstance(value, dict):
        yield from value.items()
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _members(each)


def _digits(value: int | Decimal) -> int:
    """A divisor without its decimal point; 0 says nothing."""
    _, digits, exponent = Decimal(value).as_tuple()
    if len(digits) > _MOST_DIGITS or not isinstance(exponent, int):
        return MAX_DIVISOR + 1
    return int("".join(map(str, digits))) * 10 ** min(max(exponent, 0), _MOST_DIGITS) or 1
