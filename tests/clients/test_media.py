from __future__ import annotations

import io
import wave
from pathlib import Path

import pytest
from PIL import Image
from rich.style import Style

from clients.media import BadFile, read_wav, thumbnail, write_wav


def test_sound_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    assert write_wav(path, [b"\1\0", b"\2\0"], 8_000) == 2 / 8_000
    assert read_wav(path) == (b"\1\0\2\0", 8_000)
    path.write_bytes(path.read_bytes()[:-1])
    assert read_wav(path) == (b"\1\0", 8_000)


def test_other_sound_is_refused_in_words(tmp_path: Path) -> None:
    stereo = tmp_path / "stereo.wav"
    with wave.open(str(stereo), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0\0\0\0")
    floats = tmp_path / "floats.wav"
    write_wav(floats, [b"\0\0"], 8_000)
    floats.write_bytes(floats.read_bytes().replace(b"fmt \x10\0\0\0\x01", b"fmt \x10\0\0\0\x03"))
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "short.wav").write_bytes(b"hi\n")
    refusals = {
        "stereo.wav": "mono",
        "floats.wav": r"plain PCM \(unknown format: 3\)",
        "text.wav": "not a WAV",
        "short.wav": "it ends too soon",
        "none.wav": "No such file",
    }
    for name, words in refusals.items():
        with pytest.raises(BadFile, match=words):
            read_wav(tmp_path / name)


def test_a_thumbnail_shows_two_pixels_a_cell() -> None:
    picture = Image.new("RGB", (2, 2), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 1, 2, 2))
    data = io.BytesIO()
    picture.save(data, "PNG")
    text = thumbnail(data.getvalue(), 2)
    assert text.plain == "▀▀"
    assert {span.style for span in text.spans} == {Style.parse("#ff0000 on #0000ff")}
    with pytest.raises(BadFile):
        thumbnail(b"no picture", 2)
