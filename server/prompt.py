"""The partial prompt of one turn: appended, revised, committed. Pure."""

from __future__ import annotations

from pipelines.errors import InvalidRequest, WrongState


class Prompt:
    """Text so far; offsets count code points.

    Every change raises WrongState after the commit and InvalidRequest beyond `max_chars`.
    """

    def __init__(self, max_chars: int) -> None:
        self.text = ""
        self.committed = False
        self._max_chars = max_chars

    def append(self, text: str) -> None:
        self._change("append.text", self.text + text)

    def revise(self, from_char: int, text: str) -> None:
        """What stands from `from_char` on becomes `text`."""
        if from_char > len(self.text):
            raise InvalidRequest("revise.from_char", f"must be 0 to {len(self.text)}, not {from_char}")
        self._change("revise.text", self.text[:from_char] + text)

    def replace(self, field: str, text: str) -> None:
        self._change(field, text)

    def commit(self) -> None:
        """No change from now on. Raises: InvalidRequest if there is nothing to answer."""
        if self.committed:
            raise WrongState("the prompt is already committed", field="commit")
        if not self.text.strip():
            raise InvalidRequest("commit.text", "the prompt must not be empty")
        self.committed = True

    def _change(self, field: str, text: str) -> None:
        if self.committed:
            raise WrongState("the prompt is committed and stands as it is until turn_done", field=field)
        if len(text) > self._max_chars:
            raise InvalidRequest(
                field, f"the prompt may have {self._max_chars} characters, this makes {len(text)}"
            )
        self.text = text
