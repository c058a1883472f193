"""Characters that look alike: a table of our own, small enough to be read, of what people write to evade or mistake.

Unicode's own table of confusables (UTS 39) has thousands of pairs, most of them of scripts that no text here has.
"""

import unicodedata

from kebyt5_xm.evaluation.perturbations.keyboard import is_syllable, jamo

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


def look_alikes(character: str) -> tuple[str, ...]:
    """Return what may stand for a character, each of one character or several; nothing for one without.

    Of a syllable that is its jamo one by one too (가: ㄱㅏ), which people read alike.
    """
    spelled = ("".join(jamo(character)),) if is_syllable(character) else ()
    return (*_TABLE.get(character, ()), *spelled)
