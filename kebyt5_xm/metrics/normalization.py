"""Normalization of answers and references before they are compared: texts, words, numbers.

All texts are composed first (Unicode NFC), since Hangul has two encodings that look the same.
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


def compose_unicode(text: str) -> str:
    """Return a text in NFC, without surrounding white space."""
    return unicodedata.normalize("NFC", text).strip()


def simplify(text: str, punctuation: Punctuation = "kept", case: Case = "kept") -> str:
    """Return a text in NFC with single spaces; punctuation means Unicode's categories P."""
    text = compose_unicode(text)
    if case == "ignored":
        text = text.casefold()
    if punctuation == "removed":
        text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    return " ".join(text.split())


def name_suffix(punctuation: Punctuation, case: Case) -> str:
    """Return the part of a metric's name that states the options of `simplify`; empty for the defaults."""
    return ("_without_punctuation" if punctuation == "removed" else "") + (
        "_ignoring_case" if case == "ignored" else ""
    )


def words_or_characters(text: str, tokens: Tokens) -> list[str]:
    """Return the words between spaces, or all characters that are not white space."""
    words = text.split()
    return words if tokens == "words" else list("".join(words))


def normalize_korquad(text: str) -> str:
    """Return a text as KorQuAD 1.0's `evaluate-v1.0.py` normalises it.

    Lower case, quotes and brackets as spaces, no ASCII punctuation, single spaces.
    """
    return _strip_ascii_punctuation(_KORQUAD_SPACES.sub(" ", compose_unicode(text)))


def normalize_klue(text: str) -> str:
    """Return a text as KLUE-baseline normalises answers of KLUE-MRC: lower case, no ASCII punctuation, single spaces.

    Korean quotes stay: KLUE-baseline's pattern for them matches only a sequence that never occurs.
    """
    return _strip_ascii_punctuation(compose_unicode(text))


def _strip_ascii_punctuation(text: str) -> str:
    return " ".join("".join(char for char in text.lower() if char not in _PUNCTUATION).split())


def read_number(text: str) -> float | None:
    """Return the number if the whole text is one decimal number, such as "3" or " -0.5 "; else None."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def read_numbers(metric: str, references: Sequence[Sequence[str]]) -> list[float]:
    """Return the reference number of each example; raise `UserError` unless its references are one number."""
    found = []
    for row, texts in enumerate(references, 1):
        values = {read_number(text) for text in texts}
        value = values.pop()
        if values or value is None:
            shown = ", ".join(repr(text[:40]) for text in texts[:3])
            raise UserError(
                f"{metric} needs one number as reference, such as 3.5, found {shown} in held-out example {row}; "
                "use ExactMatch for texts"
            )
        found.append(value)
    return found
