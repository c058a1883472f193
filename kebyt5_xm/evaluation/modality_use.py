"""Does the model use a modality? Every metric with the real media, with another example's, and with none.

A model can reach a fair score without looking: by the question alone, or by the commonest answer. It uses what it is
given only if it does worse when it is given something else. The text and the other modalities stay as they are.
"""

from collections.abc import Sequence

import numpy as np

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.randomness import permute
from kebyt5_xm.data.sources.template import Segment, Slot
from kebyt5_xm.evaluation.evaluation_file import ModalityUse, Use
from kebyt5_xm.evaluation.held_out import HeldOut, Tell
from kebyt5_xm.metrics import Answer, Metric, difference, score

_KEY = 0
"""Of the permutation by which media are shuffled: any will do, but always the same one."""


def measure_modality_use(held_out: HeldOut, tell: Tell = lambda _: None) -> ModalityUse:
    """Answer the examples with other media, for every modality of the source's prompt, and judge the answers."""
    modalities: dict[str, dict[str, Use]] = {}
    partners = _partners(len(held_out.rows))
    for modality in held_out.source.prompt.modalities:
        shuffled: Sequence[Answer] = ()
        if len(partners) > 1:
            tell(f"modality use: {modality} shuffled")
            shuffled = held_out.answers(lambda n, name=modality: _shuffled(held_out, name, n, partners[n]))
        tell(f"modality use: {modality} left out")
        none = held_out.answers(lambda n, name=modality: _left_out(held_out, name, n))
        modalities[modality] = {
            metric.name: _use(metric, held_out.clean, shuffled, none) for metric in held_out.source.metrics
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
    own, others = (held_out.maker.segments(held_out.table, held_out.rows[n]) for n in (place, partner))
    media = [segment for segment in others if _is(segment, modality)]
    segments: list[Segment] = []
    given = 0
    for segment in own:
        if _is(segment, modality):
            segments.append(media[given % len(media)])
            given += 1
        else:
            segments.append(segment)
    return held_out.maker.input(segments, held_out.table, held_out.rows[place])


def _left_out(held_out: HeldOut, modality: str, place: int) -> Example:
    row = held_out.rows[place]
    segments = [s for s in held_out.maker.segments(held_out.table, row) if not _is(s, modality)]
    return held_out.maker.input(segments, held_out.table, row)


def _is(segment: Segment, modality: str) -> bool:
    return isinstance(segment, Slot) and segment.modality == modality
