"""The byte-level BPE tokenizer, its chat template, and conversations as token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.data import records
from training.data_split import split_of
from training.text_conversation import Conversation
from training.text_generator import stream

BEGIN, SYSTEM, USER, ASSISTANT, END, PAD = (
    "<|begin|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|pad|>",
)
SPECIAL = (BEGIN, SYSTEM, USER, ASSISTANT, END, PAD)
DRAW = ("<draw>", "</draw>")
VOCABULARY = 4096
CONTEXT = 2048

# Every message is closed by <|end|>, so a longer last message changes nothing before it.
CHAT_TEMPLATE = (
    "{{- '<|begin|>' -}}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
# GPT-2's words, with every digit on its own.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation, for each whether the model is to learn to say it, and which decide.

    `key` holds the tokens of keys as True, others of answers with a key as False, all else as None.
    """

    ids: list[int]
    said: list[bool]
    key: list[bool | None] = field(default_factory=list)


def corpus(folder: Path | None, seed: int, count: int) -> Iterator[str]:
    """What the merges are learned from: generated talk, and the open questions for a wider vocabulary."""
    for made in islice(stream(folder, seed), count):
        for turn in made.turns:
            yield turn.user
            yield turn.assistant
    if folder is not None:
        for record in records(folder / "partial" / "questions.jsonl"):
            if split_of(str(record.get("id", record["sents"][0]))) == "train":
                yield " ".join(record["sents"])[:600]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A byte-level BPE of `VOCABULARY` entries; ids 0 to 5 are the special tokens, 6 and 7 the draw marks."""
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [AddedToken(mark, special=True, normalized=False) for mark in (*SPECIAL, *DRAW)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=marks,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_plain_marks(tokenizer)


def _with_plain_marks(tokenizer: Tokenizer) -> Tokenizer:
    """The trainer makes every mark special; those for drawing must outlive `skip_special_tokens`."""
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] in SPECIAL
    return Tokenizer.from_str(json.dumps(content))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the files that `transformers.AutoTokenizer.from_pretrained(folder)` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    names = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
    others = [SYSTEM, USER, ASSISTANT]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": others,
        **names,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    special = {**names, "additional_special_tokens": others}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


class Encoder:
    """Turns conversations into the ids that the chat template would give."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._id = tokenizer.get_vocab()
        self.pad, self.begin, self.end = self._id[PAD], self._id[BEGIN], self._id[END]

    def telling(self, words: list[str]) -> frozenset[int]:
        """Ids of the digits and of those `words` that are one token, alone or after a space."""
        wanted = [*"0123456789", *words, *(f" {word}" for word in words)]
        pieces = [self._tokenizer.encode(word, add_special_tokens=False).ids for word in wanted]
        return frozenset(ids[0] for ids in pieces if len(ids) == 1)

    def text(self, content: str) -> list[int]:
        """The ids of a message's content."""
        return list(self._tokenizer.encode(content.strip(), add_special_tokens=False).ids)

    def prompt(self, conversation: Conversation) -> list[int]:
        """Everything up to the last answer, ending in `<|assistant|>`."""
        return self._pieces(conversation, answered=False).ids

    def encode(self, conversation: Conversation) -> Encoded:
        """The whole conversation; `said` marks the answers and their `<|end|>`."""
        return self._pieces(conversation, answered=True)

    def _pieces(self, conversation: Conversation, answered: bool) -> Encoded:
        ids, said = [self.begin], [False]
        keys: list[bool | None] = [None]

        def add(role: str, text: str, learn: bool, decide: tuple[tuple[int, int], ...] | None = None) -> None:
            made = self._tokenizer.encode(text.strip(), add_special_tokens=False)
            ids.extend([self._id[role], *made.ids, self.end])
            said.extend([False, *([learn] * (len(made.ids) + 1))])
            marks = [
                None if decide is None else any(start < high and end > low for low, high in decide)
                for start, end in made.offsets
            ]
            keys.extend([None, *marks, None])

        if conversation.system is not None:
            add(SYSTEM, conversation.system, False)
        for turn in conversation.turns[:-1]:
            add(USER, turn.user, False)
            add(ASSISTANT, turn.assistant, True, turn.keys)
        last = conversation.turns[-1]
        add(USER, last.user, False)
        if answered:
            add(ASSISTANT, last.assistant, True, last.keys)
        else:
            ids.append(self._id[ASSISTANT])
            said.append(False)
            keys.append(None)
        return Encoded(ids, said, keys)
