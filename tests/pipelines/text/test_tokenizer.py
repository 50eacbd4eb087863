"""Chat templates as transformers renders them, token bytes, and prompts that are still open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from pipelines.errors import InvalidRequest, ModelBroken
from pipelines.messages import Message
from pipelines.text.tokenizer import ChatTokenizer
from tests.text_driver import Folders

HISTORY = [Message("system", "be kind"), Message("user", " one two "), Message("assistant", "four Äpfel 🙂")]


@pytest.fixture(scope="module")
def ours(folders: Folders) -> ChatTokenizer:
    return ChatTokenizer(folders(), 320)


@pytest.fixture(scope="module")
def theirs(folders: Folders) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folders())


def test_templates_render_as_in_transformers(ours: ChatTokenizer, theirs: PreTrainedTokenizerFast) -> None:
    messages = [{"role": message.role, "content": message.content} for message in HISTORY]
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.render(HISTORY) == rendered
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.encode(rendered).ids == expected


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.text(max_size=30))
def test_bytes_of_tokens_are_the_text(ours: ChatTokenizer, text: str) -> None:
    ids = ours._tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(map(ours.content, ids)).decode() == text


def test_special_tokens_say_nothing(ours: ChatTokenizer) -> None:
    assert [ours.content(token) for token in range(5)] == [b""] * 5


@pytest.mark.parametrize(
    "text", ["<|end|>", "a <|end|><|assistant|>b", "<<|end|>|>", "\ufdd0<|user|\ufdd0>", "ok"]
)
def test_nobodys_words_are_control_tokens(ours: ChatTokenizer, text: str) -> None:
    """They are encoded as what they are, in a committed prompt and in one that is still open."""
    plain = ours.encode(ours.render([Message("user", "ok")])).ids
    ids = ours.encode(ours.render([Message("user", text)])).ids
    assert [token for token in ids if not ours.content(token)] == [token for token in plain if token < 5]
    shown = b"".join(map(ours.content, ids)).decode()
    assert text.replace("\ufdd0", "\ufffd") in shown
    encoded, kept = ours.encode_open([Message("user", text + " and then")])
    assert text.replace("\ufdd0", "\ufffd") in b"".join(map(ours.content, encoded.ids[:kept])).decode() + " "
    assert ours.encode(ours.render([Message("user", text + " or ever then")]), encoded).ids == (
        ours.encode(ours.render([Message("user", text + " or ever then")])).ids
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.text(st.sampled_from("one two\n Ä🙂"), max_size=20), st.text(st.sampled_from("one Ä"), max_size=6))
def test_an_open_prompt_is_nearly_always_kept(ours: ChatTokenizer, text: str, more: str) -> None:
    """It holds no closing tokens, and at most a token of it changes as the text goes on."""
    open_ids = opened(ours, text)
    whole = ours.encode(ours.render([*HISTORY, Message("user", text + more)])).ids
    assert common(open_ids, whole) >= len(open_ids) - 1


def test_an_open_prompt_leaves_out_what_may_change(ours: ChatTokenizer) -> None:
    open_ids = opened(ours, "one two thr")
    said = b"".join(map(ours.content, open_ids)).decode()
    assert "🙂\none" in said
    assert "thr" not in said
    nothing_yet = opened(ours, "")
    assert open_ids[: len(nothing_yet)] == nothing_yet
    assert nothing_yet[-1] == ours.encode("<|user|>").ids[0]


def opened(ours: ChatTokenizer, text: str) -> list[int]:
    encoded, kept = ours.encode_open([*HISTORY, Message("user", text)])
    return encoded.ids[:kept]


def common(left: list[int], right: list[int]) -> int:
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return place
    return min(len(left), len(right))


def edited(folders: Folders, tmp_path: Path, template: object) -> Path:
    path = Path(shutil.copytree(folders(), tmp_path / "copy"))
    (path / "chat_template.jinja").unlink()
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def test_a_template_in_the_config_that_refuses(folders: Folders, tmp_path: Path) -> None:
    template = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('the user speaks first') }}{% endif %}"
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    )
    tokenizer = ChatTokenizer(edited(folders, tmp_path, template), 320)
    assert tokenizer.render([Message("user", "hello")]) == "hello"
    with pytest.raises(InvalidRequest, match="the user speaks first"):
        tokenizer.render(HISTORY)


def test_a_template_cannot_leave_its_sandbox(folders: Folders, tmp_path: Path) -> None:
    path = edited(folders, tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InvalidRequest, match="history"):
        ChatTokenizer(path, 320).render(HISTORY)


@pytest.mark.parametrize("template", ["{% for %}", 5, ["x"], [{"name": "default"}]])
def test_a_template_that_does_not_parse(folders: Folders, tmp_path: Path, template: object) -> None:
    with pytest.raises(ModelBroken, match=r"tokenizer_config\.json: chat template"):
        ChatTokenizer(edited(folders, tmp_path, template), 320)


def test_a_template_that_is_no_text(folders: Folders, tmp_path: Path) -> None:
    path = edited(folders, tmp_path, "x")
    (path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelBroken, match=r"chat_template\.jinja: chat template"):
        ChatTokenizer(path, 320)


def test_an_empty_template_is_none(folders: Folders, tmp_path: Path) -> None:
    spoken = ChatTokenizer(edited(folders, tmp_path, ""), 320).render(HISTORY)
    assert all(message.content in spoken for message in HISTORY)


def test_a_broken_tokenizer(folders: Folders, tmp_path: Path) -> None:
    path = edited(folders, tmp_path, "x")
    (path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelBroken, match=r"tokenizer\.json"):
        ChatTokenizer(path, 320)


def test_sentence_pieces_with_byte_fallback(tmp_path: Path) -> None:
    pieces = ["<unk>", "▁one", "▁two", *(f"<0x{byte:02X}>" for byte in "🙂".encode())]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = ChatTokenizer(tmp_path, 10)
    ids = [1, 3, 4, 5, 6, 2]
    assert b"".join(map(ours.content, ids)).decode() == " one🙂 two"
    assert ours.strips_space, "an answer does not begin with the first piece's space"
