"""Does the model use a modality? Every metric with the real media, with another example's, and with none.

A model can reach a fair score without looking: by the question alone, or by the commonest answer. It uses what it is
given only if it does worse when it is given something else. The text and the other modalities stay as they are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.randomness import permute
from kebyt5_xm.data.sources.template import Segment, Slot
from kebyt5_xm.evaluation.held_out import HeldOut, Tell
from kebyt5_xm.evaluation.plain_values import plain
from kebyt5_xm.metrics import Answer, Metric, Score, difference, score

_KEY = 0
"""Of the permutation by which media are shuffled: any will do, but always the same one."""


@dataclass(frozen=True)
class Use:
    """One metric with the real media of a modality, with media of other examples, and with none.

    The differences are those of a paired bootstrap over the same examples. With fewer than two examples nothing can
    be shuffled, and the scores of that are NaN.
    """

    real: Score
    shuffled: Score
    none: Score
    real_minus_shuffled: Score
    real_minus_none: Score
    higher_is_better: bool

    @property
    def used(self) -> bool | None:
        """Whether the real media are better than shuffled ones, by an interval without 0; None if not measured.

        Shuffled and not none: an example without media is like nothing the model was trained on, and it may do worse
        there without ever having told one medium from another.
        """
        end = self.real_minus_shuffled.low if self.higher_is_better else -self.real_minus_shuffled.high
        return None if math.isnan(end) else end > 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the five scores and `higher_is_better`."""
        names = ("real", "shuffled", "none", "real_minus_shuffled", "real_minus_none")
        return {
            **{name: plain(getattr(self, name)) for name in names},
            "higher_is_better": self.higher_is_better,
        }


@dataclass(frozen=True)
class ModalityUse:
    """What `modality_use` found: modality -> metric -> its figures. The source's first metric comes first."""

    num_examples: int
    modalities: dict[str, dict[str, Use]]

    def used(self) -> dict[str, bool | None]:
        """Return of each modality whether it is used, by the source's first metric."""
        return {modality: next(iter(metrics.values())).used for modality, metrics in self.modalities.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `sources.NAME.modality_use` of RUN/evaluation.json has them."""
        return {
            "examples": self.num_examples,
            "modalities": {
                modality: {name: use.as_dict() for name, use in metrics.items()}
                for modality, metrics in self.modalities.items()
            },
            "used": self.used(),
        }


def modality_use(held_out: HeldOut, tell: Tell = lambda _: None) -> ModalityUse:
    """Answer the examples with other media, for every modality of the source's prompt, and judge the answers."""
    modalities: dict[str, dict[str, Use]] = {}
    partners = _partners(len(held_out.rows))
    for modality in held_out.prompts.prompt.modalities:
        shuffled: Sequence[Answer] = ()
        if len(partners) > 1:
            tell(f"modality use: {modality} shuffled")
            shuffled = held_out.answers(lambda n, name=modality: _shuffled(held_out, name, n, partners[n]))
        tell(f"modality use: {modality} left out")
        none = held_out.answers(lambda n, name=modality: _left_out(held_out, name, n))
        modalities[modality] = {
            metric.name: _use(metric, held_out.clean, shuffled, none) for metric in held_out.metrics
        }
    return ModalityUse(len(held_out.rows), modalities)


def _use(metric: Metric, real: Sequence[Answer], shuffled: Sequence[Answer], none: Sequence[Answer]) -> Use:
    return Use(
        score(metric, real),
        score(metric, shuffled),
        score(metric, none),
        difference(metric, real if shuffled else (), shuffled),
        difference(metric, real, none),
        metric.higher_is_better,
    )


def _partners(num_examples: int) -> list[int]:
    """Return for each example another one: they form one cycle, in an order that looks random."""
    if num_examples == 0:
        return []
    order = permute(np.arange(num_examples), num_examples, _KEY)
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -1)
    return partners.tolist()


def _shuffled(held_out: HeldOut, modality: str, place: int, partner: int) -> Example:
    """Return an example with the media of another one; where it has more slots, they come round again."""
    own, others = (held_out.prompts.segments(held_out.rows[n]) for n in (place, partner))
    media = [segment for segment in others if _is(segment, modality)]
    segments: list[Segment] = []
    given = 0
    for segment in own:
        if _is(segment, modality):
            segments.append(media[given % len(media)])
            given += 1
        else:
            segments.append(segment)
    return held_out.changed.input(held_out.rows[place], segments)


def _left_out(held_out: HeldOut, modality: str, place: int) -> Example:
    row = held_out.rows[place]
    segments = [s for s in held_out.prompts.segments(row) if not _is(s, modality)]
    return held_out.changed.input(row, segments)


def _is(segment: Segment, modality: str) -> bool:
    return isinstance(segment, Slot) and segment.modality == modality
