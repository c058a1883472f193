"""An answer with what the model thinks of it: its probability, and that of every byte and word."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kebyt5_xm.model.decoding.writing import FinishReason, WrittenRow
from kebyt5_xm.vocabulary import BYTE_OFFSET

_WORD = re.compile(rb"\S+")


@dataclass(frozen=True)
class Word:
    """A word of an answer, between white space.

    `start` and `end` are its characters in the text, `confidence` the probability that the model writes it after what
    stands before it.
    """

    text: str
    start: int
    end: int
    confidence: float


def find_words(raw: bytes, byte_confidence: Sequence[float], at: int = 0) -> list[Word]:
    """Return the words among bytes whose text begins at character `at`."""
    words, end = [], 0
    for found in _WORD.finditer(raw):
        text = found[0].decode("utf-8", "replace")
        start = at + len(raw[end : found.start()].decode("utf-8", "replace"))
        confidence = math.prod(byte_confidence[found.start() : found.end()])
        words.append(Word(text, start, start + len(text), confidence))
        at, end = start + len(text), found.end()
    return words


@dataclass(frozen=True)
class Hypothesis:
    """One answer.

    Args:
        text: with U+FFFD for bytes that are not UTF-8.
        finish_reason: why it ended.
        log_probability: of the whole answer, in nats: the sum over its ids, the end of sequence included.
        confidence: the geometric mean of the probabilities of its ids, from 0 to 1.
        raw: its bytes; those of `text` unless it is not UTF-8.
        byte_confidence: the probability of each of these bytes, given those before it.
        ids: as they were written, the end of sequence included.
    """

    text: str
    finish_reason: FinishReason
    log_probability: float
    confidence: float
    raw: bytes = field(repr=False)
    byte_confidence: tuple[float, ...] = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)

    @classmethod
    def of(cls, row: WrittenRow, log_probabilities: Sequence[float]) -> "Hypothesis":
        """Return an answer whose ids have these log-probabilities, at least as many as there are ids."""
        found = list(zip(row.ids, log_probabilities, strict=False))
        raw, total = row.raw, sum(value for _, value in found)
        of_bytes = [math.exp(value) for id_, value in found if BYTE_OFFSET <= id_ < BYTE_OFFSET + 256]
        assert row.finish_reason is not None
        return cls(
            raw.decode("utf-8", "replace"),
            row.finish_reason,
            total,
            math.exp(total / len(found)) if found else 0.0,
            raw,
            tuple(of_bytes[: len(raw)]),
            tuple(row.ids),
        )

    @property
    def words(self) -> tuple[Word, ...]:
        """The words in order."""
        return tuple(find_words(self.raw, self.byte_confidence))

    @property
    def word_bytes(self) -> tuple[tuple[int, int], ...]:
        """Start and end of every word among the bytes of `raw`."""
        return tuple(found.span() for found in _WORD.finditer(self.raw))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON; bytes that are not UTF-8 are U+FFFD in them."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "log_probability": self.log_probability,
            "confidence": self.confidence,
            "words": [vars(word) for word in self.words],
            "byte_confidence": list(self.byte_confidence),
        }
