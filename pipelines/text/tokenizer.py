"""Text to token ids and back: `tokenizer.json` and the folder's chat template.

Only the template writes control tokens. What looks like one in somebody's words is cut in two, so that it is
encoded as the characters that it is, and nobody's words can end a message or speak for another role.

Pure after construction and thread-safe: it is used off the executor thread.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from pipelines.errors import InvalidRequest, ModelBroken, Unsupported
from pipelines.messages import Message
from pipelines.text.config import read_json
from pipelines.text.encoding import CUT, Encoded, Encoder
from pipelines.vocabulary import read_tokenizer

_END = "\uf8ff"
_UNKNOWN = "\ufffd"


class ChatTokenizer:
    """Renders conversations and tokenises them."""

    def __init__(self, folder: Path, vocab: int) -> None:
        path = folder / "tokenizer.json"
        raw = read_json(path)
        self._tokenizer = read_tokenizer(path)
        if self._tokenizer.get_vocab_size() > vocab:
            raise ModelBroken(f"{path}: {self._tokenizer.get_vocab_size()} tokens, config.json has {vocab}")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._bytes = _token_bytes(self._tokenizer, raw, vocab)
        self._template, self._names = _template(folder)
        self.strips_space = any(
            d.get("type") == "Strip" and d.get("start") for d in _decoders(raw.get("decoder"))
        )
        self._encoder = Encoder(self._tokenizer, raw, special=self._template is None)
        self._control = _control_tokens(self._tokenizer)
        self._longest = max((len(piece) for piece in self._bytes), default=1)

    def content(self, token: int) -> bytes:
        """The bytes that a token stands for; none for special tokens."""
        return self._bytes[token]

    def same_tokens(self, other: ChatTokenizer) -> bool:
        """Whether every id stands for the same bytes."""
        return self._bytes == other._bytes

    def fits(self, characters: int, tokens: int) -> bool:
        """False where text of so many characters cannot be so few tokens, whatever it says."""
        return characters <= tokens * self._longest

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the model was trained to see it, up to where the answer begins; `CUT` inside of
        what only looks like a control token."""
        if self._template is None:
            return "\n".join(message.content.replace(CUT, _UNKNOWN) for message in messages)
        values = [{"role": message.role, "content": self._harmless(message.content)} for message in messages]
        try:
            return self._template.render(messages=values, add_generation_prompt=True, **self._names)
        except jinja2.TemplateError as error:
            raise InvalidRequest("history", f"the model's chat template refuses it: {error}") from error

    def encode(self, rendered: str, before: Encoded | None = None) -> Encoded:
        """Token ids; templates write special tokens themselves. before: of a text that begins alike."""
        return self._encoder.encode(rendered, before)

    def encode_open(self, messages: Sequence[Message], before: Encoded | None = None) -> tuple[Encoded, int]:
        """A conversation whose last message is still being written, and how many of its tokens stand before
        the last word, the token in front of it and the template's closing tokens, all of which may still
        change."""
        rendered = self.render(messages)
        last = messages[-1]
        marked = self.render([*messages[:-1], Message(last.role, last.content + _END)])
        closing = len(marked) - marked.rfind(_END) - 1
        end = len(rendered) - closing
        begin = max(0, end - len(self._harmless(last.content)))
        word = max((rendered.rfind(space, begin, end) for space in (" ", "\n", "\t")), default=-1)
        encoded = self.encode(rendered, before)
        limit = word if word >= begin else begin
        keep = next((place for place, end in enumerate(encoded.ends) if end > limit), len(encoded.ends))
        return encoded, max(0, keep - 1) if word >= begin else keep

    def _harmless(self, content: str) -> str:
        """With a `CUT` behind the first character of everything that looks like a control token."""
        content = content.replace(CUT, _UNKNOWN)
        pieces, start = list[str](), 0
        while self._control is not None and (found := self._control.search(content, start)):
            pieces.append(content[start : found.start() + 1])
            start = found.start() + 1
        return CUT.join([*pieces, content[start:]])


def _control_tokens(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Finds them in a text. Those of one character are nothing that could be cut."""
    added = tokenizer.get_added_tokens_decoder().values()
    names = [re.escape(token.content) for token in added if token.special and len(token.content) > 1]
    return re.compile("|".join(names)) if names else None


def _template(folder: Path) -> tuple[jinja2.Template | None, dict[str, Any]]:
    """The compiled chat template, None where the folder has none, and the special tokens it may name."""
    path = folder / "tokenizer_config.json"
    raw = read_json(path) if path.exists() else {}
    names = {
        name: value["content"] if isinstance(value, dict) else value
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (value := raw.get(name)) is not None
    }
    file = folder / "chat_template.jinja"
    try:
        source = raw.get("chat_template")
        if isinstance(source, list):
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        if file.exists():
            path = file
            source = path.read_text(encoding="utf-8")
        return (_environment().from_string(source) if source else None), names
    except (jinja2.TemplateSyntaxError, UnicodeDecodeError, TypeError, KeyError, AttributeError) as error:
        raise ModelBroken(f"{path}: chat template: {error}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers renders templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _Generation]
    )

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    def raise_exception(message: str) -> str:
        raise jinja2.TemplateError(message)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here it only renders."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        parser.stream.expect("name:generation")
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _token_bytes(tokenizer: Tokenizer, raw: dict[str, Any], vocab: int) -> tuple[bytes, ...]:
    """What each id decodes to, for byte-level tokenizers and for sentence pieces with byte fallback."""
    decoders = _decoders(raw.get("decoder"))
    kinds = {decoder.get("type") for decoder in decoders}
    if "ByteLevel" in kinds:
        table = _byte_alphabet()
        known = {"ByteLevel", "Fuse"}

        def content(piece: str) -> bytes:
            return b"".join(table.get(letter, letter.encode()) for letter in piece)
    else:
        known = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
        spaces = [d["pattern"].get("String", "") for d in decoders if d.get("type") == "Replace"] or ["▁"]
        fallback = "ByteFallback" in kinds

        def content(piece: str) -> bytes:
            if fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                return bytes([int(piece[3:5], 16)])
            return piece.replace(spaces[0], " ").encode()

    if not decoders or kinds - known:
        raise Unsupported(f"tokenizer.json: decoder {sorted(map(str, kinds))}", field="decoder")
    pieces = [b""] * vocab
    for piece, token in tokenizer.get_vocab(with_added_tokens=True).items():
        pieces[token] = content(piece)
    for token, added in tokenizer.get_added_tokens_decoder().items():
        pieces[token] = b"" if added.special else added.content.encode()
    return tuple(pieces)


def _decoders(raw: dict[str, Any] | None) -> list[dict[str, Any]]:
    if raw is None:
        return []
    return list(raw["decoders"]) if raw.get("type") == "Sequence" else [raw]


def _byte_alphabet() -> dict[str, bytes]:
    """GPT-2's printable stand-ins for bytes (Radford et al., 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): bytes([byte]) for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + i): bytes([byte]) for i, byte in enumerate(others)}
