"""Reading a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from pipelines.errors import ModelBroken


def read_tokenizer(path: Path) -> Tokenizer:
    """Raises: ModelBroken naming the file."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        if type(error) is not Exception:  # the library raises plain ones
            raise
        raise ModelBroken(f"{path}: {error}") from error
