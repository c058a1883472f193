"""The labels of a classification source: the words to write, and what stands for them in the files."""

from collections.abc import Sequence

from kebyt5_xm.data.bad_sample import BadSample
from kebyt5_xm.errors import UserError, did_you_mean


def checked(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a closed list of answers; raise `UserError` for fewer than two, an empty one, or one given twice."""
    if isinstance(labels, str) or len(labels) < 2 or "" in labels:
        raise UserError(f"found the labels {labels!r}, expected two words or more, none empty")
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"found the label '{twice[0]}' twice, expected each word once")
    return tuple(labels)


class Words:
    """What is published -> the word that is written for it.

    Raises `UserError` for fewer than two words, or a word given twice.
    """

    def __init__(self, given: list[str] | dict[str, str]):
        self.given = given
        self._words = given if isinstance(given, dict) else {word: word for word in given}
        self.labels = checked(list(given.values()) if isinstance(given, dict) else given)

    @classmethod
    def of(cls, given: list[str] | dict[str, str] | None) -> "Words | None":
        """Return the words of what a recipe gives, if it gives any."""
        return None if given is None else cls(given)

    def word(self, text: str) -> str:
        """Return the word for a text in the files; raise `BadSample` if it is no label."""
        if text not in self._words:
            raise BadSample(
                f"found the label {text[:60]!r}, expected one of {self._known()}{did_you_mean(text, self._words)}"
            )
        return self._words[text]

    def check(self, texts: Sequence[str]) -> None:
        """Raise `UserError` if most texts are no labels: the labels are wrong then, and not the rows."""
        strange = [text for text in texts if text not in self._words]
        if 2 * len(strange) > len(texts):
            raise UserError(
                f"found {len(strange)} of the first {len(texts)} targets that are no label, such as "
                f"{strange[0][:60]!r}, expected {self._known()}; correct `labels`"
            )

    def _known(self) -> str:
        shown = ", ".join(list(self._words)[:8])
        return shown if len(self._words) <= 8 else f"{shown} and {len(self._words) - 8} more"
