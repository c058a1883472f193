"""The labels of a classification source: the words to generate, and their published forms."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.errors import UserError, did_you_mean

_NUMBER = re.compile(r"[-+]?[0-9]{1,300}(\.[0-9]{1,300})?")


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a closed list of answers.

    Raises `UserError` for fewer than two labels, an empty label, or a label given twice, also in two Unicode forms.
    """
    if isinstance(labels, str) or len(labels) < 2 or "" in labels:
        raise UserError(f"found the labels {labels!r}, expected two words or more, none empty")
    if strange := [label for label in labels if not isinstance(label, str)]:
        raise UserError(f"found the label {strange[0]!r}, expected a text; put it in quotes")
    forms = Counter(map(_composed, labels))
    if twice := [label for label in labels if forms[_composed(label)] > 1]:
        raise UserError(f"found the label '{twice[0]}' twice, expected each word once")
    return tuple(labels)


class Words:
    """Published label -> the word to generate.

    A label matches exactly; else in composed Unicode form (NFC) without white space at its ends; else as the same
    number (1.0 for 1) or the same truth value (True for true). Kinds are never mixed: True is not 1. Raises
    `UserError` for fewer than two words, and for a word or a published label given twice.
    """

    def __init__(self, given: Sequence[str] | Mapping[str, str]):
        pairs = given.items() if isinstance(given, Mapping) else [(word, word) for word in given]
        self._words = {str(published): word for published, word in pairs}
        self.given: list[str] | dict[str, str] = (
            dict(self._words) if isinstance(given, Mapping) else list(given)
        )
        self.labels = check_labels(list(given.values()) if isinstance(given, Mapping) else given)
        self._alike: dict[object, str] = {}
        for published, word in self._words.items():
            first = self._alike.setdefault(_composed(published), word)
            if first != word:
                raise UserError(
                    f"found the label '{published}' twice, in two Unicode forms or with spaces around it; expected "
                    "each once"
                )
        numbers = Counter(map(_value, self._words))
        self._alike |= {
            _value(published): word
            for published, word in self._words.items()
            if numbers[_value(published)] == 1 and _value(published) is not None
        }

    @classmethod
    def of(cls, given: Sequence[str] | Mapping[str, str] | None) -> "Words | None":
        """Return the words for `labels` of a recipe; None if it has none."""
        return None if given is None else cls(given)

    def _find(self, text: str) -> str | None:
        if (word := self._words.get(text)) is not None:
            return word
        if (word := self._alike.get(_composed(text))) is not None:
            return word
        value = _value(text)
        return None if value is None else self._alike.get(value)

    def word(self, text: str) -> str:
        """Return the word for a published label. Raises `BadSample` for an unknown one."""
        word = self._find(text)
        if word is None:
            raise BadSample(
                f"found the label {text[:60]!r}, expected one of {self._known()}{self._hint(text)}"
            )
        return word

    def check(self, texts: Sequence[str]) -> None:
        """Raise `UserError` if most texts are unknown: then the labels are wrong, not the rows."""
        strange = [text for text in texts if self._find(text) is None]
        if 2 * len(strange) > len(texts):
            raise UserError(
                f"found {len(strange)} of the first {len(texts)} targets that are no label, such as "
                f"{strange[0][:60]!r}, expected {self._known()}{self._hint(strange[0])}; correct `labels`"
            )

    def _hint(self, text: str) -> str:
        """Return how a text differs from the label that it looks like."""
        for published in self._words:
            for difference, same in _LOOKS:
                if same(text) == same(published):
                    return f"; '{published}' differs in {difference} alone"
        if text.casefold() in ("true", "false"):
            return "; the column holds booleans: give `true` and `false` as the keys of labels"
        return did_you_mean(text, self._words)

    def _known(self) -> str:
        shown = ", ".join(list(self._words)[:8])
        return shown if len(self._words) <= 8 else f"{shown} and {len(self._words) - 8} more"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()


def _spaceless(text: str) -> str:
    return "".join(c for c in _compatible(text).casefold() if c.isprintable() and not c.isspace())


_LOOKS = (
    ("the width or the form of its characters", _compatible),
    ("upper and lower case", lambda text: _compatible(text).casefold()),
    ("spaces, case or characters that are not seen", _spaceless),
)
"""(the difference between two texts that look alike, the form in which they are equal)."""


def _value(text: str) -> tuple[str, object] | None:
    """Return (kind, value) of a text that is a number or a truth value, else None."""
    stripped = text.strip()
    if stripped.casefold() in ("true", "false"):
        return "truth", stripped.casefold()
    return ("number", Fraction(stripped)) if _NUMBER.fullmatch(stripped) else None
