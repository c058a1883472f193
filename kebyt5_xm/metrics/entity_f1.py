"""F1 of entities listed in a text: `이순신=PS; 한산도=LC`."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics.checks import check_choice, require_free_texts
from kebyt5_xm.metrics.metric import Answer, Metric, f1, ratio
from kebyt5_xm.metrics.normalization import simplify

Average = Literal["micro", "macro"]
Entity = tuple[str, str]


class EntityF1(Metric):
    """F1 of entities `text=TAG` joined by `;`, compared as multisets of (text, tag).

    An entity's text may contain `=` but not `;`. A malformed piece (not `text=TAG`, or a tag not in `tags`) is a
    false alarm; with `macro`, one for every tag. Of several references, the one with the fewest errors counts.

    Args:
        average: `micro` over all entities, or `macro`, the mean F1 of the tags that occur.
        none: the text that means "no entity"; an empty text means it too.
        tags: the allowed tags; all tags if None.
    """

    def __init__(self, average: Average = "micro", none: str = "없음", tags: list[str] | None = None):
        self.average = check_choice("average", average, Average)
        self.none = simplify(none)
        self.tags = tags

    @property
    def name(self) -> str:
        return "entity_f1" if self.average == "micro" else "entity_f1_macro"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts("EntityF1", labels)
        for row, texts in enumerate(references, 1):
            for text in texts:
                for piece in self.read(text)[1]:
                    tag = piece.rpartition("=")[2].strip()
                    expected = f"text=TAG; text=TAG, or {self.none!r}"
                    if self.tags is not None:
                        expected += f", with tags among {', '.join(self.tags)}{did_you_mean(tag, self.tags)}"
                    raise UserError(
                        f"EntityF1 found {piece[:60]!r} in the reference of held-out example {row}, "
                        f"expected {expected}"
                    )

    def read(self, text: str) -> tuple[Counter[Entity], list[str]]:
        """Return the entities of a text and its malformed pieces."""
        text = simplify(text)
        entities: Counter[Entity] = Counter()
        malformed = []
        for piece in map(str.strip, text.split(";") if text != self.none else ()):
            entity, _, tag = (part.strip() for part in piece.rpartition("="))
            if entity and tag and (self.tags is None or tag in self.tags):
                entities[entity, tag] += 1
            elif piece:
                malformed.append(piece)
        return entities, malformed

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 1 + 3 * tags]: malformed pieces; hits, false alarms and misses of each tag."""
        pairs = []
        for answer in answers:
            found, malformed = self.read(answer.text)
            references = [self.read(reference)[0] for reference in answer.references]
            pairs.append(
                (found, len(malformed), min(references, key=lambda right: _count_errors(found, right)))
            )
        tags = sorted({tag for found, _, right in pairs for _, tag in found | right})
        column = {tag: number for number, tag in enumerate(tags)}
        figures = np.zeros((len(answers), 1 + 3 * len(tags)))
        for row, (found, malformed, right) in zip(figures, pairs, strict=True):
            row[0] = malformed
            for outcome, entities in enumerate((found & right, found - right, right - found)):
                for (_, tag), often in entities.items():
                    row[1 + 3 * column[tag] + outcome] += often
        return figures

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        malformed = sums[..., :1]
        by_tag = sums[..., 1:].reshape(*sums.shape[:-1], sums.shape[-1] // 3, 3)
        if self.average == "micro":
            outcomes = by_tag.sum(-2)
            outcomes[..., 1] += malformed[..., 0]
            return f1(outcomes)
        occurs = by_tag.any(-1)
        by_tag = by_tag.copy()
        by_tag[..., 1] += malformed
        mean = ratio(np.where(occurs, f1(by_tag), 0).sum(-1), occurs.sum(-1))
        return np.where(~occurs.any(-1) & (malformed[..., 0] > 0), 0.0, mean)


def _count_errors(found: Counter[Entity], right: Counter[Entity]) -> int:
    return (found - right).total() + (right - found).total()
