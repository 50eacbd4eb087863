"""The split is a pure function of the id, with about the shares that it promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from training import data
from training.data_split import split_of


def test_same_id_is_always_in_the_same_split() -> None:
    assert split_of("dlg-881444f3") == split_of("dlg-881444f3")
    assert [split_of(f"record-{index}") for index in range(6)] == ["train"] * 6


def test_shares() -> None:
    counts = Counter(split_of(f"id/{index}") for index in range(20_000))
    assert 0.89 < counts["train"] / 20_000 < 0.91
    assert 0.04 < counts["dev"] / 20_000 < 0.06
    assert 0.04 < counts["test"] / 20_000 < 0.06


def test_data_folder_is_named_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPBEAT_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    monkeypatch.setenv("UPBEAT_DATA", str(tmp_path / "absent"))
    assert data.data_dir() is None


def test_records_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"t": "é"}\n\n{"t": "b"}\n', encoding="utf-8")
    assert [record["t"] for record in data.records(file)] == ["é", "b"]
