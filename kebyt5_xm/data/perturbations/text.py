"""Damage to text: typos, decomposed Korean, missing spaces, look-alike characters, and corrupt bytes."""

import unicodedata

import numpy as np

from kebyt5_xm.data.perturbations import Perturbation
from kebyt5_xm.data.perturbations.keyboard import (
    NEIGHBOURS,
    compose_syllables,
    is_syllable,
    split_syllable,
)

# Our own small table of look-alikes. Unicode's table of confusables (UTS 39) has thousands of pairs, mostly of
# scripts that do not occur here.
#
# Letters that look the same in another alphabet in most fonts; letters with several look-alikes are in several lines.
_PAIRS = (
    ("aceijopsxyABCEHIJKMOPSTXY", "асеіјорѕхуАВСЕНІЈКМОРЅТХУ"),  # Cyrillic
    ("ovABEHIKMNOPTXYZ", "ονΑΒΕΗΙΚΜΝΟΡΤΧΥΖ"),  # Greek
    ("ニロカハエタトヘベペー", "二口力八工夕卜へべぺ一"),  # katakana: to Chinese characters, and to hiragana
    ("二口力八工夕卜へべぺ一", "ニロカハエタトヘベペー"),
    # Syllables with similar outlines that Korean speakers swap for fun or to evade filters (야민정음).
    ("대머귀커며띠명띵멍댕비네과파유왕", "머대커귀띠며띵명댕멍네비파과윾앟"),
    # Compatibility jamo, as in ㅋㅋ: to the half-width ones.
    ("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ", "ﾡﾢﾤﾧﾨﾩﾱﾲﾳﾵﾶﾷﾸﾹﾺﾻﾼﾽﾾ"),
)

_RADICALS = range(0x2F00, 0x2FD6)
"""The block of Kangxi radicals: they look like the characters that NFKC normalises them to."""

_FULL_WIDTH = 0xFF01 - ord("!")
"""Offset of full-width forms, which repeat printable ASCII; Japanese and Chinese input methods produce them."""


def _look_alikes() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for letters, others in _PAIRS:
        for letter, other in zip(letters, others, strict=True):
            table[letter] = (*table.get(letter, ()), other)
    for code in _RADICALS:
        character = unicodedata.normalize("NFKC", chr(code))
        table[character] = (*table.get(character, ()), chr(code))
    for code in range(ord("!"), ord("~") + 1):
        table[chr(code)] = (*table.get(chr(code), ()), chr(code + _FULL_WIDTH))
    return table


_TABLE = _look_alikes()


class Typos(Perturbation):
    """Typing errors: Latin letters on QWERTY, Korean syllables on the 2-beolsik layout, composed again.

    A drawn keystroke is, with equal probability, followed by a neighbouring key, left out, replaced by a neighbouring
    key, or swapped with the next. Digits stay, since another number is another question; so do characters that are
    not typed key by key (Chinese characters, kana).

    Strengths: people leave 1.2 % of keystrokes wrong on keyboards (Dhakal et al. 2018, 136 million keystrokes) and
    2.3 % on phones (Palin et al. 2019); 1 and 3 % stand for these, and at 10 and 20 % words become unreadable.
    """

    name, kind, unit = "typos", "text", "share of keystrokes"
    strengths = (0.01, 0.03, 0.1, 0.2)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> str:
        strokes = _strokes(item)
        drawn = generator.random(len(strokes)) < strength
        action = generator.integers(4, size=len(strokes))
        choice = generator.random(len(strokes))
        if not drawn.any():
            return item
        typed: list[tuple[str, bool]] = []
        swapped = False
        for n, (key, composes) in enumerate(strokes):
            if swapped:  # this stroke was already written, before the previous one
                swapped = False
                continue
            neighbours = NEIGHBOURS.get(key)
            if neighbours is None or not drawn[n]:
                typed.append((key, composes))
                continue
            other = neighbours[int(choice[n] * len(neighbours))], composes
            following = strokes[n + 1] if n + 1 < len(strokes) else None
            if action[n] == 0:
                typed += [(key, composes), other]
            elif action[n] == 2:
                typed.append(other)
            elif action[n] == 3:
                swapped = following is not None and following[0] in NEIGHBOURS
                typed += (
                    [following, (key, composes)] if following is not None and swapped else [(key, composes)]
                )
        return _typed(typed)


class Jamo(Perturbation):
    """Korean syllables decomposed into conjoining jamo (NFD): the same text, in twice or three times the bytes.

    Composing (NFC) restores the text. Strengths: file names of macOS and some PDFs are wholly decomposed; shares
    stand for text pasted from several sources.
    """

    name, kind, unit = "jamo", "text", "share of syllables"
    strengths = (0.1, 0.3, 1.0)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> str:
        drawn = generator.random(len(item)) < strength
        return "".join(
            unicodedata.normalize("NFD", character) if decomposed and is_syllable(character) else character
            for character, decomposed in zip(item, drawn, strict=True)
        )


class MissingSpaces(Perturbation):
    """Spaces left out, as in messages and between Korean words. Strengths: some, half, and all."""

    name, kind, unit = "missing_spaces", "text", "share of spaces"
    strengths = (0.2, 0.5, 1.0)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> str:
        drawn = generator.random(len(item)) < strength
        return "".join(c for c, removed in zip(item, drawn, strict=True) if not (removed and c == " "))


class Homoglyphs(Perturbation):
    """Characters replaced by look-alikes; see `find_look_alikes`.

    Strengths: a stray one, enough to evade a filter, and half of all characters that have one.
    """

    name, kind, unit = "homoglyphs", "text", "share of characters that have a look-alike"
    strengths = (0.05, 0.2, 0.5)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> str:
        drawn = generator.random(len(item)) < strength
        choice = generator.random(len(item))
        characters = []
        for n, character in enumerate(item):
            look_alikes = find_look_alikes(character) if drawn[n] else ()
            characters.append(look_alikes[int(choice[n] * len(look_alikes))] if look_alikes else character)
        return "".join(characters)


class ByteNoise(Perturbation):
    """Bytes of UTF-8 replaced by other bytes; the result may be invalid UTF-8.

    They include the bytes from 0xF5 on, which never occur in text and are sentinels in some models: damaged files
    have them too. Strengths: one byte in a hundred, in thirty, in ten.
    """

    name, kind, unit = "byte_noise", "text", "share of bytes"
    strengths = (0.01, 0.03, 0.1)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> bytes:
        raw = np.frombuffer(item.encode(), dtype=np.uint8)
        drawn = generator.random(len(raw)) < strength
        other = raw + generator.integers(1, 256, size=len(raw)).astype(np.uint8)  # modulo 256
        return np.where(drawn, other, raw).astype(np.uint8).tobytes()


def _strokes(text: str) -> list[tuple[str, bool]]:
    """Return (keystroke, whether it is part of a syllable) for a text."""
    strokes: list[tuple[str, bool]] = []
    for character in text:
        if is_syllable(character):
            strokes += [(key, True) for key in "".join(split_syllable(character))]
        else:
            strokes.append((character, False))
    return strokes


def _typed(strokes: list[tuple[str, bool]]) -> str:
    """Return the text of keystrokes. Only those of syllables are composed, so that single jamo stay unchanged."""
    pieces: list[str] = []
    pending = ""
    for key, composes in strokes:
        if composes:
            pending += key
            continue
        pieces += [compose_syllables(pending), key]
        pending = ""
    return "".join(pieces) + compose_syllables(pending)


def find_look_alikes(character: str) -> tuple[str, ...]:
    """Return the look-alikes of a character, each of one or more characters.

    For a syllable they include its jamo one by one (가: ㄱㅏ), which people read the same.
    """
    spelled = ("".join(split_syllable(character)),) if is_syllable(character) else ()
    return (*_TABLE.get(character, ()), *spelled)
