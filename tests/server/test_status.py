"""The error tree on the wire."""

from __future__ import annotations

import pytest

from pipelines import errors
from server.services.status import TABLE, code_of, message_of, status_of, trailing
from tests.grpc_calls import Details, parse


def test_the_table_has_every_error_and_its_documented_code() -> None:
    assert set(TABLE) == set(errors.KINDS.values())
    documented = {}
    for line in (errors.__doc__ or "").splitlines():
        if line.startswith("+-- "):
            words = line.split()
            documented[words[1]] = words[-1]
    assert {kind.__name__: code.name for kind, code in TABLE.items()} == documented


@pytest.mark.parametrize("kind", list(TABLE))
def test_reason_is_the_class_in_upper_snake(kind: type[errors.UpbeatError]) -> None:
    error = errors.rebuild(kind.__name__, "why", "", 0.0)
    status = status_of(error)
    assert (status.code, status.message) == (TABLE[kind].value[0], "why")
    expected = "".join("_" + letter if letter.isupper() else letter.upper() for letter in kind.__name__)[1:]
    assert parse(status) == Details(expected, "", 0.0)


def test_field_and_retry() -> None:
    error = errors.Exhausted("full", field="image.width", retry_after_s=1.25)
    assert parse(status_of(error)) == Details("EXHAUSTED", "image.width", 1.25)


def test_an_error_without_an_entry_is_internal() -> None:
    assert code_of(errors.UpbeatError("odd")).name == "INTERNAL"


def test_a_message_that_repeats_what_was_sent_fits_into_the_metadata() -> None:
    """Clients take 8 KiB; what is larger becomes an error of the transport, without field and reason."""
    error = errors.InvalidRequest("image.mime", f"not {'中' * 1_000_000}")
    details = sum(len(key) + len(value) * 4 / 3 for key, value in trailing(error))
    assert details + 3 * len(message_of(error).encode()) < 8192
    assert parse(status_of(error)).field == "image.mime"
