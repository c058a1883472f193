"""Neighbouring keys, and Korean syllables to keystrokes of the 2-beolsik layout and back."""

import re

# (keys, shift to the right in widths of a key): the same on ISO and ANSI keyboards.
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
_REACH = 1.3
"""Largest distance between the centres of neighbouring keys, in widths of a key: the six keys around a key."""

# KS X 5002, the 2-beolsik layout, on the keys of QWERTY; a capital stands for Shift.
_PLAIN = dict(
    zip("qwertyuiopasdfghjklzxcvbnm", "ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔㅁㄴㅇㄹㅎㅗㅓㅏㅣㅋㅌㅊㅍㅠㅜㅡ", strict=True)
)
_SHIFTED = {"Q": "ㅃ", "W": "ㅉ", "E": "ㄸ", "R": "ㄲ", "T": "ㅆ", "O": "ㅒ", "P": "ㅖ"}

# In the order of The Unicode Standard, section 3.12.
_INITIALS = tuple("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ")
# fmt: off
_TWO_KEYS = {
    "ㅘ": "ㅗㅏ", "ㅙ": "ㅗㅐ", "ㅚ": "ㅗㅣ", "ㅝ": "ㅜㅓ", "ㅞ": "ㅜㅔ", "ㅟ": "ㅜㅣ", "ㅢ": "ㅡㅣ",
    "ㄳ": "ㄱㅅ", "ㄵ": "ㄴㅈ", "ㄶ": "ㄴㅎ", "ㅄ": "ㅂㅅ",
    "ㄺ": "ㄹㄱ", "ㄻ": "ㄹㅁ", "ㄼ": "ㄹㅂ", "ㄽ": "ㄹㅅ", "ㄾ": "ㄹㅌ", "ㄿ": "ㄹㅍ", "ㅀ": "ㄹㅎ",
}
# fmt: on
_VOWELS = tuple(_TWO_KEYS.get(v, v) for v in "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ")
_FINALS = ("", *(_TWO_KEYS.get(f, f) for f in "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"))
_FIRST, _LAST = 0xAC00, 0xD7A3  # 가, 힣


def _longest_first(keys: tuple[str, ...]) -> str:
    return "|".join(sorted(filter(None, keys), key=len, reverse=True))


# Like an input method: a vowel takes the final consonant of the syllable before it as its initial.
_SYLLABLE = re.compile(
    f"([{''.join(_INITIALS)}])({_longest_first(_VOWELS)})(?:({_longest_first(_FINALS)})(?![ㅏ-ㅣ]))?"
)


def _neighbours() -> dict[str, tuple[str, ...]]:
    places = {key: (shift + n, y) for y, (row, shift) in enumerate(_ROWS) for n, key in enumerate(row)}
    neighbours: dict[str, tuple[str, ...]] = {}
    for key, (x, y) in places.items():
        near = [k for k, (a, b) in places.items() if k != key and (a - x) ** 2 + (b - y) ** 2 <= _REACH**2]
        neighbours[key] = tuple(near)
        neighbours[key.upper()] = tuple(k.upper() for k in near)
        neighbours[_PLAIN[key]] = tuple(_PLAIN[k] for k in near)
        if key.upper() in _SHIFTED:
            neighbours[_SHIFTED[key.upper()]] = tuple(_SHIFTED.get(k.upper(), _PLAIN[k]) for k in near)
    return neighbours


NEIGHBOURS = _neighbours()
"""Latin letter, or jamo with a key -> the letters or jamo on the keys around it."""


def is_syllable(character: str) -> bool:
    """Return whether a character is one of the 11,172 Korean syllables."""
    return _FIRST <= ord(character) <= _LAST


def split_syllable(syllable: str) -> tuple[str, str, str]:
    """Return initial, vowel and final of a syllable as compatibility jamo: two if it takes two keystrokes, or ""."""
    rest, final = divmod(ord(syllable) - _FIRST, len(_FINALS))
    initial, vowel = divmod(rest, len(_VOWELS))
    return _INITIALS[initial], _VOWELS[vowel], _FINALS[final]


def compose_syllables(keys: str) -> str:
    """Return the text that an input method shows for keystrokes of jamo: syllables, and single jamo that form none.

    The keystrokes that `split_syllable` gives become the same syllables.
    """
    return _SYLLABLE.sub(
        lambda match: chr(
            _FIRST
            + (_INITIALS.index(match[1]) * len(_VOWELS) + _VOWELS.index(match[2])) * len(_FINALS)
            + _FINALS.index(match[3] or "")
        ),
        keys,
    )
