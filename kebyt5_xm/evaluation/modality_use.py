"""Does the model use a modality? Every metric with the real media, with media of other examples, and with none.

A model can reach a fair score without looking: from the question alone, or by the most common answer. It uses a
modality only if it does worse with other media. The text and the other modalities are not changed.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.randomness import permute
from kebyt5_xm.data.sources.template import MediaSegment, Segment
from kebyt5_xm.evaluation.evaluation_file import ModalityUse, Use
from kebyt5_xm.evaluation.held_out import HeldOut, Tell
from kebyt5_xm.metrics import Answer, Metric, difference, score

_KEY = 0
"""Key of the permutation that shuffles media. Arbitrary, but fixed, so that evaluations are comparable."""


def measure_modality_use(held_out: HeldOut, tell: Tell = lambda _: None) -> ModalityUse:
    """Answer the examples with shuffled media and with none, for each modality, and judge the answers."""
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
    """Return another example for each one. They form one cycle in pseudorandom order."""
    if num_examples == 0:
        return []
    order = permute(np.arange(num_examples), num_examples, _KEY)
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -1)
    return partners.tolist()


def _shuffled(held_out: HeldOut, modality: str, position: int, partner: int) -> Example:
    """Return an example with the media of another one, repeated if it has more slots."""
    original, other = (held_out.prompts.segments(held_out.rows[n]) for n in (position, partner))
    media = cycle([segment for segment in other if _is_slot(segment, modality)])
    segments = [next(media) if _is_slot(segment, modality) else segment for segment in original]
    return held_out.changed.input(held_out.rows[position], segments)


def _left_out(held_out: HeldOut, modality: str, position: int) -> Example:
    row = held_out.rows[position]
    segments = [s for s in held_out.prompts.segments(row) if not _is_slot(s, modality)]
    return held_out.changed.input(row, segments)


def _is_slot(segment: Segment, modality: str) -> bool:
    return isinstance(segment, MediaSegment) and segment.modality == modality
