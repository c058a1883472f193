"""The interface of a teacher, and what it answers."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from kebyt5_xm.errors import UserError


@dataclass(frozen=True)
class Taught:
    """An answer.

    Attributes:
        answer: its text.
        confidence: the geometric mean of the probabilities of its ids, or the probability of a label, from 0 to 1.
        log_probability: of the whole answer, in nats.
        num_tokens: ids of the answer, the end of sequence included; None for a label.
        finish_reason: why it ended: "stop", "length" or "loop".
    """

    answer: str
    confidence: float
    log_probability: float
    num_tokens: int | None
    finish_reason: str

    @classmethod
    def of_ids(cls, answer: str, log_probability: float, num_tokens: int, finish_reason: str) -> "Taught":
        """Return an answer with its confidence."""
        confidence = math.exp(log_probability / num_tokens) if num_tokens else 0.0
        return cls(answer, confidence, log_probability, num_tokens, finish_reason)

    def as_dict(self) -> dict[str, Any]:
        """Return the columns of the answer."""
        return asdict(self)


class Teacher(Protocol):
    """A model that answers prompts, always in the same way."""

    settings: dict[str, Any]
    """What the answers depend on, besides the rows, as JSON values."""

    def find_modality(self, name: str) -> str:
        """Return the modality that a prompt names. Raises `UserError`."""
        ...

    def is_recording(self, name: str) -> bool:
        """Return whether a modality takes recordings."""
        ...

    def answer(self, batch: Sequence[list[Any]]) -> list[Taught]:
        """Return the answers to lists of segments. Raises `UserError`."""
        ...


def no_media(model: str, name: str) -> UserError:
    """Return the error of a prompt with a modality for a model that has none."""
    return UserError(
        f"the prompt has a place for '{name}', but '{model}' reads text alone; name columns of text"
    )
