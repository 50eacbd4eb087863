"""Written English to spoken words: numbers, times, dates, money, units, abbreviations, acronyms, addresses.

`spoken(text)` gives lower-case words (letters and inner apostrophes) and the marks `,` `.` `?` `!`. Numbers
are said by `inflect`; what it doesn't know (when a number is a year, a time, a price) is decided here, most
specific rule first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import inflect

MARKS = frozenset(",.?!")
_ENGINE = inflect.engine()
_ENGINE_LOCK = Lock()
"""The engine counts thousands on itself while it says a number; texts are normalised on many threads."""

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_UNITS = {
    "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "m": "meter", "kg": "kilogram", "g": "gram",
    "mg": "milligram", "l": "liter", "ml": "milliliter", "ms": "millisecond", "s": "second", "min": "minute",
    "h": "hour", "hz": "hertz", "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz", "kb": "kilobyte",
    "mb": "megabyte", "gb": "gigabyte", "tb": "terabyte", "mph": "mile per hour", "kmh": "kilometer per hour",
    "km/h": "kilometer per hour", "ft": "foot", "in": "inch", "lb": "pound", "lbs": "pound", "oz": "ounce",
    "w": "watt", "kw": "kilowatt", "v": "volt", "px": "pixel", "fps": "frame per second",
    "°c": "degree celsius", "°f": "degree fahrenheit", "°": "degree", "%": "percent",
}  # fmt: skip
_UNCHANGED = frozenset({"hertz", "kilohertz", "megahertz", "gigahertz", "percent"})
_WORDS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint",
    "vs": "versus", "etc": "et cetera", "approx": "approximately", "dept": "department", "jr": "junior",
    "sr": "senior", "no": "number", "e.g": "for example", "i.e": "that is", "a.m": "a m", "p.m": "p m",
}  # fmt: skip
_SIGNS = {
    "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "#": " number ", "*": " ", "~": " about ",
    "<": " less than ", ">": " greater than ", "×": " times ", "÷": " divided by ", "°": " degrees ",
    "%": " percent ", "_": " ", "^": " ", "|": " ", "\\": " backslash ", "/": " slash ",
}  # fmt: skip
_LETTERS = {"a": "ay", "w": "double u"}


@lru_cache(maxsize=4096)
def number_words(digits: str) -> str:
    """`digits` (an integer of any length, leading zeros read out) in words."""
    if (len(digits) > 1 and digits.startswith("0")) or len(digits) > 15:
        return " ".join(number_words(digit) for digit in digits)
    with _ENGINE_LOCK:
        return _plain(_ENGINE.number_to_words(digits, andword=""))


def _plain(words: str | list[str]) -> str:
    return re.sub(r"[^a-z]+", " ", str(words)).strip()


def decimal_words(number: str) -> str:
    """`3.14` or `1,024` in words."""
    whole, _, part = number.replace(",", "").partition(".")
    said = number_words(whole or "0")
    return f"{said} point {' '.join(number_words(digit) for digit in part)}" if part else said


def ordinal_words(number: str) -> str:
    """`21` as `twenty first`."""
    said = number_words(number.replace(",", ""))
    with _ENGINE_LOCK:
        return _plain(_ENGINE.ordinal(said))


def year_words(year: str) -> str:
    """`1999` as `nineteen ninety nine`, `2005` as `two thousand five`, `1900` as `nineteen hundred`."""
    century, rest = year[:2], int(year[2:])
    if rest == 0:
        return number_words(year) if year[1] == "0" else f"{number_words(century)} hundred"
    if rest < 10:
        return (
            number_words(year) if year[1] == "0" else f"{number_words(century)} oh {number_words(str(rest))}"
        )
    return f"{number_words(century)} {number_words(str(rest))}"


def clock_words(hour: str, minute: str, second: str | None, half: str | None) -> str:
    """`7:05 pm` as `seven oh five p m`, `14:00` as `fourteen hundred`, `9:00` as `nine o'clock`."""
    said = [number_words(str(int(hour)))]
    if int(minute) == 0 and not half and not second:
        said.append("o'clock" if int(hour) < 13 else "hundred")
    elif int(minute) > 0 or second:
        said.append(f"oh {number_words(minute[1])}" if minute[0] == "0" else number_words(minute))
    if second:
        said.append(f"and {_counted(second, 'second')}")
    if half:
        said.append("a m" if half.lower() == "a" else "p m")
    return " ".join(said)


def _counted(number: str, unit: str) -> str:
    """`3`, `inch` as `three inches`; `mile per hour` grows in its first word."""
    first, _, rest = unit.partition(" ")
    if float(number.replace(",", "")) != 1 and first not in _UNCHANGED:
        with _ENGINE_LOCK:
            first = _ENGINE.plural_noun(first)
    return " ".join(part for part in (decimal_words(number), first, rest) if part)


def money_words(sign: str, whole: str, part: str | None, scale: str | None) -> str:
    """`$3.50` as `three dollars and fifty cents`, `$2.5 million` as `two point five million dollars`."""
    major, minor = _MONEY[sign]
    if scale:
        return f"{decimal_words(whole + ('.' + part if part else ''))} {scale.strip().lower()} {major}s"
    said = _counted(whole, major)
    if part and part.strip("0"):
        cents = str(int(part.ljust(2, "0")[:2]))
        coins = _counted(cents, minor) if minor != "penny" or cents == "1" else f"{number_words(cents)} pence"
        said = coins if whole == "0" else f"{said} and {coins}"
    return said


def address_words(address: str) -> str:
    """A URL or e-mail address, its marks read out and its scheme left off."""
    bare = re.sub(r"^https?://", "", address, flags=re.IGNORECASE).rstrip("/")
    bare = re.sub(r"\bwww\b", "w w w", bare)
    for mark, word in (
        (".", "dot"),
        ("@", "at"),
        ("/", "slash"),
        ("-", "dash"),
        ("_", "underscore"),
        (":", "colon"),
    ):
        bare = bare.replace(mark, f" {word} ")
    return re.sub(r"[?&=#%+~]", " ", bare)


def letters(word: str) -> str:
    """The letters of an acronym, one by one."""
    return " ".join(_LETTERS.get(letter, letter) for letter in word.lower())


_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_HALF = r"([ap])(?:\.m\.(?=\s*\S)|\.?m\b)"
_MONTH_NAMES = "|".join(_MONTHS)
_UNIT_NAMES = "|".join(sorted((re.escape(unit) for unit in _UNITS), key=len, reverse=True))
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"https?://[^\s,;]+[\w/]|\bwww\.[\w./-]+\w|[\w.+-]+@[\w-]+\.[\w.]*\w", lambda m: address_words(m[0])),
    (r"\b[a-z0-9-]+\.(?:com|org|net|io|dev|edu|gov)\b(?:/[\w/.-]*\w)?", lambda m: address_words(m[0])),
    (
        r"\b([12]\d{3})-(0?[1-9]|1[0-2])-(0?[1-9]|[12]\d|3[01])\b",
        lambda m: f"{_MONTHS[int(m[2]) - 1]} {ordinal_words(str(int(m[3])))}, {year_words(m[1])}",
    ),
    (
        rf"\b({_MONTH_NAMES}) (\d{{1,2}})(?:st|nd|rd|th)?\b(?!:)(?:,? ([12]\d{{3}})\b)?",
        lambda m: f"{m[1]} {ordinal_words(m[2])}" + (f", {year_words(m[3])}" if m[3] else ""),
    ),
    (
        rf"\b([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?:\s*{_HALF})?",
        lambda m: clock_words(m[1], m[2], m[3], m[4]),
    ),
    (
        rf"\b(1[0-2]|0?[1-9])\s*{_HALF}",
        lambda m: f"{number_words(str(int(m[1])))} {m[2].lower()} m",
    ),
    (
        r"([$£€])\s?(\d[\d,]*)(?:\.(\d+))?(\s(?:thousand|million|billion|trillion)\b)?",
        lambda m: money_words(m[1], m[2].rstrip(","), m[3], m[4]) + ("," if m[2].endswith(",") else ""),
    ),
    (rf"(?<![\w.])-({_NUMBER})", lambda m: f"minus {m[1]}"),
    (
        rf"\b({_NUMBER})\s?({_UNIT_NAMES})(?![\w/])",
        lambda m: m[0] if m[2] == "in" and " " in m[0] else _counted(m[1], _UNITS[m[2]]),
    ),
    (r"\b(\d[\d,]*)(?:st|nd|rd|th)\b", lambda m: ordinal_words(m[1])),
    (r"\b(\d+)\s?/\s?(\d+)\b", lambda m: fraction_words(m[1], m[2])),
    (r"\b(1[1-9]\d\d|20[0-4]\d)\b(?![,.]\d)", lambda m: year_words(m[1])),
    (rf"{_NUMBER}", lambda m: f" {decimal_words(m[0])} "),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), said) for pattern, said in _RULES)


def fraction_words(top: str, bottom: str) -> str:
    """`1/2` as `one half`, `3/4` as `three quarters`, `7/10` as `seven tenths`."""
    names = {"2": ("half", "halves"), "4": ("quarter", "quarters")}
    one, many = names.get(bottom, (ordinal_words(bottom), ordinal_words(bottom) + "s"))
    return f"{number_words(top)} {one if top == '1' else many}"


def spoken(text: str) -> list[str]:
    """The words and marks of a text, as they are said. Emoji and other scripts' letters are left out."""
    said = _latin(text)
    said = _acronyms(said).lower()
    said = re.sub(
        r"\b(mrs|mr|ms|dr|prof|st|vs|etc|approx|dept|jr|sr|e\.g|i\.e)\.(?=\s|,|$)", _abbreviation, said
    )
    said = re.sub(r"\bno\.\s?(?=\d)", "number ", said)
    for pattern, replace in _COMPILED:
        said = pattern.sub(replace, said)
    for sign, word in _SIGNS.items():
        said = said.replace(sign, word)
    said = re.sub(r"[;:()\[\]{}\"]|\s-+\s|--+", " , ", said).replace("-", " ")
    tokens = re.findall(r"[a-z]+(?:'[a-z]+)*'?|[,.?!]", said)
    return _settle(tokens)


def _latin(text: str) -> str:
    """Accents off, typographic marks to plain ones, everything else outside ASCII (but °, £, €, ×, ÷) to a
    space.
    """
    plain = text.replace("…", ".").replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    plain = re.sub(r"[–—]", " , ", plain).replace("\n", " . " if "\n\n" in plain else " ")
    decomposed = unicodedata.normalize("NFKD", plain)
    kept = (c if c.isascii() or c in "°£€×÷" else "" if unicodedata.combining(c) else " " for c in decomposed)
    return "".join(kept)


def _acronyms(text: str) -> str:
    """Spells out words of capitals unless they can be said (a vowel and four letters) or the text is all
    capitals.
    """
    if sum(c.islower() for c in text) == 0 and len(text) > 6:
        return text

    def said(match: re.Match[str]) -> str:
        word = match[1]
        easy = len(word) >= 4 and re.search(r"[AEIOU]", word) and not re.search(r"[^AEIOUY]{4}", word)
        return match[0] if easy or word in {"AM", "PM"} else f" {letters(word)}{match[2] and chr(39) + 's'} "

    return re.sub(r"(?<![\w$.])([A-Z]{2,})((?:'?s)?)(?![\w])", said, text)


def _abbreviation(match: re.Match[str]) -> str:
    return _WORDS[match[1]]


def _settle(tokens: list[str]) -> list[str]:
    """Drops marks that open the text or repeat; of neighbours the strongest stays."""
    strength = {",": 0, ".": 1, "!": 2, "?": 3}
    settled: list[str] = []
    for token in tokens:
        if token not in MARKS:
            settled.append(token.rstrip("'"))
        elif settled and settled[-1] in MARKS:
            settled[-1] = max(settled[-1], token, key=strength.__getitem__)
        elif settled:
            settled.append(token)
    return settled
