"""What is done to answers and references alike before they are compared.

Everywhere, texts are composed first (Unicode NFC): Hangul comes in two spellings that look the same.
"""

import re
import string
import unicodedata
from typing import Literal

Punctuation = Literal["kept", "removed"]
Case = Literal["kept", "ignored"]

_PUNCTUATION = frozenset(string.punctuation)
_KORQUAD_SPACES = re.compile("['\"《》<>〈〉()‘’]")


def composed(text: str) -> str:
    """Return a text in NFC, without white space around it."""
    return unicodedata.normalize("NFC", text).strip()


def plain(text: str, punctuation: Punctuation = "kept", case: Case = "kept") -> str:
    """Return a composed text with single spaces; punctuation is Unicode's categories P."""
    text = composed(text)
    if case == "ignored":
        text = text.casefold()
    if punctuation == "removed":
        text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    return " ".join(text.split())


def words_or_characters(text: str, tokens: Literal["words", "characters"]) -> list[str]:
    """Return the words between spaces, or all characters that are not white space."""
    words = text.split()
    return words if tokens == "words" else list("".join(words))


def korquad(text: str) -> str:
    """Return a text as KorQuAD 1.0's `evaluate-v1.0.py` compares it.

    Lower case; quotes and brackets become spaces; ASCII punctuation goes; single spaces.
    """
    return _klue(_KORQUAD_SPACES.sub(" ", composed(text)))


def klue(text: str) -> str:
    """Return a text as KLUE-baseline compares answers of KLUE-MRC: lower case, no ASCII punctuation, single spaces.

    Its pattern of Korean quotes matches them only in one sequence that never occurs, so in effect they stay.
    """
    return _klue(composed(text))


def _klue(text: str) -> str:
    return " ".join("".join(char for char in text.lower() if char not in _PUNCTUATION).split())
