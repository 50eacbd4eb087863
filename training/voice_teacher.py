"""espeak-ng as the teacher: a development-time tool, loaded through ctypes and never imported at run time.

It speaks *phoneme strings* (`[[...]]`, its own mnemonics), so that what it says is exactly what our front
end wrote, and its phoneme events give the durations.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE_RATE = 16_000
WORDS_PER_MINUTE = 155

# Our own variant of espeak's en-us: no echo, no roughness, no flutter, which would only blur the analysis.
VARIANT = """language variant
name upbeat
gender female
pitch 150 220
flutter 0
roughness 0
voicing 75
consonants 150 150
formant 0 105 80 150
formant 1 110 80 160
formant 2 110 70 150
formant 3 110 70 150
formant 4 115 80 200
formant 5 115 80 100
"""

_OUTPUT_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_UTF8, _PHONEMES = 1, 0x100
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_PARAMETER_RATE = 1


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, slots=True)
class Spoken:
    """The teacher's audio (float32 mono, `SAMPLE_RATE`) and where each phoneme begins, in seconds."""

    audio: npt.NDArray[np.float32]
    phonemes: tuple[tuple[str, float], ...]


class TeacherMissing(RuntimeError):
    """espeak-ng is not installed on this machine."""


class Teacher:
    """espeak-ng with one voice. One instance a process: the library's state is global."""

    def __init__(self, variant: str = VARIANT, rate: int = WORDS_PER_MINUTE) -> None:
        path = ctypes.util.find_library("espeak-ng")
        if path is None:
            raise TeacherMissing(
                "espeak-ng is not installed (Debian: apt-get install libespeak-ng1 espeak-ng-data)"
            )
        self._library = ctypes.CDLL(path)
        self._folder = tempfile.TemporaryDirectory()
        data = self._with_variant(Path(self._folder.name), variant)
        self._rate = self._library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, str(data).encode(), _PHONEME_EVENTS
        )
        if self._rate <= 0:
            raise TeacherMissing("espeak-ng refuses its own data folder")
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._audio: list[npt.NDArray[np.int16]] = []
        self._events: list[tuple[str, float]] = []
        self._callback: Callable[..., int] = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)
        if self._library.espeak_SetVoiceByName(b"en-us+upbeat") != 0:
            raise TeacherMissing("espeak-ng has no voice en-us")
        self._library.espeak_SetParameter(_PARAMETER_RATE, rate, 0)

    @staticmethod
    def _with_variant(folder: Path, variant: str) -> Path:
        """A data folder of links to espeak's own, with our variant added; returns its path."""
        command = shutil.which("espeak-ng")
        if command is None:
            raise TeacherMissing("espeak-ng is not installed (Debian: apt-get install espeak-ng)")
        said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
        source, data = Path(said.split("Data at:")[1].strip()), folder / "espeak-ng-data"
        (data / "voices" / "!v").mkdir(parents=True)
        for item in source.iterdir():
            if item.name != "voices":
                (data / item.name).symlink_to(item)
        (data / "voices" / "!v" / "upbeat").write_text(variant, encoding="utf-8")
        return data

    def _collect(self, wave: ctypes.Array[ctypes.c_short], count: int, events: ctypes.Array[_Event]) -> int:
        if count > 0:
            self._audio.append(np.ctypeslib.as_array(wave, shape=(count,)).copy())
        at = 0
        while events[at].type != _EVENT_END_OF_LIST:
            if events[at].type == _EVENT_PHONEME:
                self._events.append((events[at].id.string.decode(), events[at].sample / self._rate))
            at += 1
        return 0

    def phonemes(self, text: str) -> list[str]:
        """espeak's own reading of `text`: one string of mnemonics a clause, phonemes parted by `_`."""
        pointer, clauses = ctypes.c_char_p(text.encode()), []
        while pointer.value is not None:
            said = self._library.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, ord("_") << 8)
            clauses.append(re.sub(r"\([a-z-]+\)", "", said.decode()).strip())
        return [clause for clause in clauses if clause]

    def speak(self, text: str, phonemes: bool = False) -> Spoken:
        """Speaks text, or `[[...]]` phoneme strings where `phonemes` is set."""
        self._audio, self._events = [], []
        data = text.encode()
        flags = _UTF8 | (_PHONEMES if phonemes else 0)
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, flags, None, None)
        self._library.espeak_Synchronize()
        if not self._audio:
            return Spoken(np.zeros(0, np.float32), ())
        wave = np.concatenate(self._audio).astype(np.float32) / 32768.0
        audio = soxr.resample(wave, self._rate, SAMPLE_RATE).astype(np.float32)
        return Spoken(audio, tuple(self._events))
