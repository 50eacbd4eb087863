"""Sound and pictures on the user's side: WAV files, a player if there is one, pictures in a terminal."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Iterable
from pathlib import Path

from PIL import Image as Pillow
from PIL import UnidentifiedImageError
from rich.color import Color
from rich.style import Style
from rich.text import Text

PLAYERS = (
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"),
)
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
MIMES = {suffix: mime for mime, suffix in SUFFIXES.items()} | {".jpeg": "image/jpeg"}


class BadFile(Exception):
    """A file of the user's that cannot be read as what it should be."""


def write_wav(path: Path, pieces: Iterable[bytes], sample_rate: int) -> float:
    """Writes mono PCM16 to a WAV file; returns its length in seconds. Raises: OSError."""
    data = b"".join(pieces)
    with path.open("wb") as target, wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(data)
    return len(data) / 2 / sample_rate


def read_wav(path: Path) -> tuple[bytes, int]:
    """PCM16 and sample rate of a mono 16-bit WAV file, of what is there where it was cut. Raises: BadFile."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getnchannels() != 1 or file.getsampwidth() != 2:
                shape = f"{file.getnchannels()} channels of {8 * file.getsampwidth()} bits"
                raise BadFile(f"{path}: must be mono with 16 bits, not {shape}")
            pcm16 = file.readframes(file.getnframes())
            return pcm16[: len(pcm16) & ~1], file.getframerate()
    except (wave.Error, EOFError) as error:
        why = str(error) or "it ends too soon"
        if why.startswith("unknown format"):
            raise BadFile(f"{path}: must be mono with 16 bits, as plain PCM ({why})") from error
        raise BadFile(f"{path}: not a WAV file ({why})") from error
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from error


def play(path: Path) -> bool:
    """Plays a WAV file in the background with the first player that is installed; False if there is none."""
    for player in PLAYERS:
        if shutil.which(player[0]):
            subprocess.Popen([*player, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return True
    return False


def thumbnail(data: bytes, columns: int) -> Text:
    """An encoded picture as lines of half blocks, `columns` wide, two pixels a cell. Raises: BadFile."""
    try:
        with Pillow.open(io.BytesIO(data)) as picture:
            rows = max(1, round(columns * picture.height / picture.width / 2))
            small = picture.convert("RGB").resize((columns, 2 * rows), Pillow.Resampling.BOX)
    except (UnidentifiedImageError, OSError) as error:
        raise BadFile(f"not a picture ({error})") from error
    raw = small.tobytes()

    def colour(x: int, y: int) -> Color:
        at = 3 * (y * columns + x)
        return Color.from_rgb(raw[at], raw[at + 1], raw[at + 2])

    lines = Text(no_wrap=True)
    for row in range(0, 2 * rows, 2):
        for x in range(columns):
            lines.append("▀", Style(color=colour(x, row), bgcolor=colour(x, row + 1)))
        lines.append("\n" if row + 2 < 2 * rows else "")
    return lines
