"""What is made of answers and references alike before they are compared: plain texts, words, numbers.

Everywhere, texts are composed first (Unicode NFC): Hangul comes in two spellings that look the same.
"""

import re
import string
import unicodedata
from collections.abc import Sequence
from typing import Literal

from kebyt5_xm.errors import UserError

Punctuation = Literal["kept", "removed"]
Case = Literal["kept", "ignored"]
Tokens = Literal["words", "characters"]

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
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


def suffix(punctuation: Punctuation, case: Case) -> str:
    """Return what a metric's name says of the options of `plain`, nothing of the defaults."""
    return ("_without_punctuation" if punctuation == "removed" else "") + (
        "_ignoring_case" if case == "ignored" else ""
    )


def words_or_characters(text: str, tokens: Tokens) -> list[str]:
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


def number(text: str) -> float | None:
    """Return the decimal number that a whole text is, such as "3", "-0.5" or " 3.75 "; None if it is none."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def numbers(metric: str, references: Sequence[Sequence[str]]) -> list[float]:
    """Return the number of each example; raise `UserError` where the references are not one number."""
    found = []
    for row, texts in enumerate(references, 1):
        values = {number(text) for text in texts}
        value = values.pop()
        if values or value is None:
            shown = ", ".join(repr(text[:40]) for text in texts[:3])
            raise UserError(
                f"{metric} needs one number as reference, such as 3.5, found {shown} in held-out example {row}; "
                "use ExactMatch for texts"
            )
        found.append(value)
    return found
