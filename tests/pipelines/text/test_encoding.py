"""What was encoded before is taken over, and the tokens are those of the whole text."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from pipelines.text.encoding import Encoded, Encoder, by_words

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = "Where does Ann live? She's in 12 towns, at 3050 places.\n\n  Ünï 🙂 code;  and   so on, it ends. "
PIECES = [*"abe 's.,\n123 Ä🙂", " the", " lives", " in", "<|end|>", "  ", "\n\n", " 12", " Ann"]


def tokenizer(pattern: str = GPT2, **options: Any) -> Tokenizer:
    made = Tokenizer(models.BPE())
    steps = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    made.pre_tokenizer = options.get("pre_tokenizer", pre_tokenizers.Sequence(steps))
    if "normalizer" in options:
        made.normalizer = options["normalizer"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [TEXT] * 3,
        trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|end|>"]),
    )
    return made


def raw(made: Tokenizer) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(made.to_str())
    return parsed


class Counting:
    """A tokenizer, and how many characters it was given."""

    def __init__(self, made: Tokenizer) -> None:
        self.made, self.pre_tokenizer, self.given = made, made.pre_tokenizer, 0

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        self.given += len(text)
        return self.made.encode(text, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("pattern", [GPT2, LLAMA3])
def test_a_text_that_is_typed_and_revised_is_encoded_as_if_whole(pattern: str) -> None:
    rng, made = random.Random(1), tokenizer(pattern)
    counting: Any = Counting(made)
    encoder = Encoder(counting, raw(made), special=False)
    text, closing, before, whole = TEXT, "<|end|>", None, 0
    for _ in range(400):
        if rng.random() < 0.25:
            text = text[: max(0, len(text) - rng.randrange(12))]
        text += "".join(rng.choices(PIECES, k=rng.randrange(1, 4)))
        before = encoder.encode(text + closing, before)
        expected = made.encode(text + closing, add_special_tokens=False)
        assert before == Encoded(text + closing, expected.ids, [end for _, end in expected.offsets])
        whole += len(text) + len(closing)
    assert counting.given < 0.5 * whole


def test_only_the_end_of_a_long_text_is_encoded_again() -> None:
    made = tokenizer()
    counting: Any = Counting(made)
    encoder = Encoder(counting, raw(made), special=False)
    before = encoder.encode("Ann lives in a town. " * 500 + "Where does she li<|end|>")
    counting.given = 0
    encoder.encode("Ann lives in a town. " * 500 + "Where does she live?<|end|>", before)
    assert counting.given < 40


@pytest.mark.parametrize(
    "options",
    [
        {"pattern": r"\w+ \w+|\w+|\W"},
        {"pattern": r"(?<=a)b|\s+|\S+"},
        {"normalizer": normalizers.NFC()},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": pre_tokenizers.Metaspace()},
    ],
)
def test_encoders_that_look_around_get_the_whole_text(options: dict[str, Any]) -> None:
    made = tokenizer(**options)
    assert not by_words(made, raw(made))


def test_the_tokenizers_own_special_tokens_need_the_whole_text() -> None:
    made = tokenizer()
    counting: Any = Counting(made)
    encoder = Encoder(counting, raw(made), special=True)
    counting.given = 0
    encoder.encode(TEXT, encoder.encode(TEXT))
    assert counting.given == 2 * len(TEXT)


def test_added_tokens_that_take_spaces_need_the_whole_text() -> None:
    made = tokenizer()
    parsed = raw(made)
    assert by_words(made, parsed)
    parsed["added_tokens"][0]["lstrip"] = True
    assert not by_words(made, parsed)
