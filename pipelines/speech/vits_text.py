"""Text to the symbols of a VITS folder, by the tokenizer that it brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import VitsTokenizer
from transformers.utils import is_phonemizer_available, is_uroman_available

from pipelines.errors import ModelBroken, Unsupported
from pipelines.speech.speaker import Symbols
from pipelines.speech.voice.normalise import MARKS, spoken

SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "।")
ENGLISH = ("en", "eng", "en-us")
CLOSERS = "\"'”’»)]}*_ \t\n"


class VitsText:
    """Pure and thread-safe. English that the vocabulary can only spell (it has no digits) is written out
    first: "12" would be dropped without a word."""

    def __init__(self, folder: Path) -> None:
        """Raises: ModelBroken naming the file at fault, Unsupported naming the missing package."""
        try:
            self._tokenizer: Any = VitsTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelBroken(f"{folder / 'vocab.json'}: {error}") from error
        if self._tokenizer.phonemize and not is_phonemizer_available():
            raise Unsupported(f"{folder}: this voice is written in phonemes: install the package phonemizer")
        if self._tokenizer.is_uroman and not is_uroman_available():
            raise Unsupported(f"{folder}: this voice is written in Latin letters: install the package uroman")
        vocabulary = self._tokenizer.get_vocab()
        self._in_words = self.language in ENGLISH and "1" not in vocabulary and not self._tokenizer.phonemize
        self._silent = {
            token_id
            for token, token_id in vocabulary.items()
            if token_id == 0 or not any(c.isalnum() for c in token) or token.startswith("<")
        }

    @property
    def language(self) -> str:
        """The folder's own name of its language, "" where it gives none."""
        return str(self._tokenizer.language or "")

    def symbols(self, text: str) -> Symbols:
        """No ids where no letter of the text is in the vocabulary."""
        written = _joined(spoken(text)) if self._in_words else text
        ids = tuple(int(token_id) for token_id in self._tokenizer(written)["input_ids"])
        said = any(token_id not in self._silent for token_id in ids)
        return Symbols(ids if said else (), text.rstrip(CLOSERS).endswith(SENTENCE_ENDS))


def _joined(words: list[str]) -> str:
    """Words with a space between them and none before a mark."""
    return "".join(word if word in MARKS else f" {word}" for word in words).strip()
