"""Damage to text: what people, keyboards, file systems and cables do to it."""

import unicodedata

import numpy as np

from kebyt5_xm.evaluation.perturbations.keyboard import NEIGHBOURS, composed, is_syllable, jamo
from kebyt5_xm.evaluation.perturbations.perturbation import Perturbation

# A table of our own of what people write to evade or mistake, small enough to be read: Unicode's table of confusables
# (UTS 39) has thousands of pairs, most of them of scripts that no text here has.
#
# Letters that most fonts draw alike in another alphabet; those with more than one look-alike are in several lines.
_PAIRS = (
    ("aceijopsxyABCEHIJKMOPSTXY", "асеіјорѕхуАВСЕНІЈКМОРЅТХУ"),  # Cyrillic
    ("ovABEHIKMNOPTXYZ", "ονΑΒΕΗΙΚΜΝΟΡΤΧΥΖ"),  # Greek
    ("ニロカハエタトヘベペー", "二口力八工夕卜へべぺ一"),  # katakana: to Chinese characters, and to hiragana
    ("二口力八工夕卜へべぺ一", "ニロカハエタトヘベペー"),
    # Syllables that Korean speakers swap for fun or past a filter, as their outlines agree (야민정음).
    ("대머귀커며띠명띵멍댕비네과파유왕", "머대커귀띠며띵명댕멍네비파과윾앟"),
    # Compatibility jamo, as in ㅋㅋ: to the half-width ones.
    ("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ", "ﾡﾢﾤﾧﾨﾩﾱﾲﾳﾵﾶﾷﾸﾹﾺﾻﾼﾽﾾ"),
)

_RADICALS = range(0x2F00, 0x2FD6)
"""The block of Kangxi radicals: drawn like the characters that compatibility normalisation (NFKC) makes of them."""

_FULL_WIDTH = 0xFF01 - ord("!")
"""The block of full-width forms repeats printable ASCII, which Japanese and Chinese input methods give for it."""


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
    """Keys missed: Latin letters on QWERTY, Korean syllables on the 2-beolsik layout, composed again.

    A keystroke that is drawn is, each as often, followed by a key beside it, left out, replaced by a key beside it,
    or swapped with the next. Digits stay, since another number is another question, and so does what is not typed
    key by key (Chinese characters, kana).

    Strengths: people leave 1.2 % of keystrokes wrong on keyboards (Dhakal et al. 2018, 136 million keystrokes) and
    2.3 % on phones (Palin et al. 2019); 1 and 3 % are those, 10 and 20 % are where words stop to be readable.
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
            if swapped:  # it stands already before the stroke it was swapped with
                swapped = False
                continue
            beside = NEIGHBOURS.get(key)
            if beside is None or not drawn[n]:
                typed.append((key, composes))
                continue
            other = beside[int(choice[n] * len(beside))], composes
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

    Composing (NFC) gives the text back. Strengths: all is what macOS's file names and some PDFs hold; shares are
    texts pasted together from such.
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
    """Spaces left out, as in messages and between Korean words. Strengths: some, half, and every one."""

    name, kind, unit = "missing_spaces", "text", "share of spaces"
    strengths = (0.2, 0.5, 1.0)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> str:
        drawn = generator.random(len(item)) < strength
        return "".join(c for c, removed in zip(item, drawn, strict=True) if not (removed and c == " "))


class Homoglyphs(Perturbation):
    """Characters replaced by those that look like them; see `look_alikes`.

    Strengths: a stray one, what evades a filter, and half of all that can be.
    """

    name, kind, unit = "homoglyphs", "text", "share of characters that have a look-alike"
    strengths = (0.05, 0.2, 0.5)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> str:
        drawn = generator.random(len(item)) < strength
        choice = generator.random(len(item))
        written = []
        for n, character in enumerate(item):
            others = look_alikes(character) if drawn[n] else ()
            written.append(others[int(choice[n] * len(others))] if others else character)
        return "".join(written)


class ByteNoise(Perturbation):
    """Bytes of UTF-8 replaced by any other bytes; what comes out need not be UTF-8.

    Among them are the bytes from 0xF5 on, which text never holds and some models take for sentinels: a damaged file
    has them like any others. Strengths: a byte in a hundred, in thirty, in ten.
    """

    name, kind, unit = "byte_noise", "text", "share of bytes"
    strengths = (0.01, 0.03, 0.1)

    def apply(self, item: str, strength: float, generator: np.random.Generator) -> bytes:
        raw = np.frombuffer(item.encode(), dtype=np.uint8)
        drawn = generator.random(len(raw)) < strength
        other = raw + generator.integers(1, 256, size=len(raw)).astype(np.uint8)  # modulo 256
        return np.where(drawn, other, raw).astype(np.uint8).tobytes()


def _strokes(text: str) -> list[tuple[str, bool]]:
    """Return the keystrokes of a text, and of each whether it is a part of a syllable."""
    strokes: list[tuple[str, bool]] = []
    for character in text:
        if is_syllable(character):
            strokes += [(key, True) for key in "".join(jamo(character))]
        else:
            strokes.append((character, False))
    return strokes


def _typed(strokes: list[tuple[str, bool]]) -> str:
    """Return the text of keystrokes; only those of syllables are composed, so that single jamo stay what they are."""
    pieces: list[str] = []
    pending = ""
    for key, composes in strokes:
        if composes:
            pending += key
            continue
        pieces += [composed(pending), key]
        pending = ""
    return "".join(pieces) + composed(pending)


def look_alikes(character: str) -> tuple[str, ...]:
    """Return what may stand for a character, each of one character or several; nothing for one without.

    Of a syllable that is its jamo one by one too (가: ㄱㅏ), which people read alike.
    """
    spelled = ("".join(jamo(character)),) if is_syllable(character) else ()
    return (*_TABLE.get(character, ()), *spelled)
