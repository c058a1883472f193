"""What damage costs: every metric on the same held-out examples, clean and perturbed in several strengths."""

from collections.abc import Callable, Sequence
from typing import Any

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.sources.template import Segment, Slot, as_bytes
from kebyt5_xm.evaluation.evaluation_file import Curve, Point, Robustness
from kebyt5_xm.evaluation.held_out import HeldOut, Tell
from kebyt5_xm.evaluation.perturbations import PERTURBATIONS, Kind, Perturbation, generator
from kebyt5_xm.metrics import Answer, Score, score

_SEED = 0
"""Of all that is drawn: any will do, but always the same one."""


def measure_robustness(
    held_out: HeldOut,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    tell: Tell = lambda _: None,
) -> Robustness:
    """Answer the examples under every perturbation that touches them, and judge the answers.

    Texts are perturbed where the prompt has columns of text, and only what comes from those; images and recordings
    where it has slots of them. A perturbation that changes none of the examples (decomposed Korean, in a source of
    English) has no curve.
    """
    fitting = [p for p in perturbations if p.kind in _kinds(held_out.source)]
    curves = []
    for number, perturbation in enumerate(fitting, start=1):
        points = []
        for strength in perturbation.strengths:
            tell(f"robustness: {perturbation.name} {strength:g}, perturbation {number} of {len(fitting)}")
            answers = held_out.answers(_maker(held_out, perturbation, strength))
            changed = sum(a is not clean for a, clean in zip(answers, held_out.clean, strict=True))
            points.append(Point(strength, changed, _scores(held_out, answers)))
        if any(point.changed for point in points):
            curves.append(Curve(perturbation.name, perturbation.kind, perturbation.unit, points))
    return Robustness(len(held_out.rows), _scores(held_out, held_out.clean), curves)


def _kinds(source: Manifest) -> set[Kind | str]:
    """Return what the prompt of a source has that can be perturbed, among other media."""
    media = {interface.media for interface in source.maker.interfaces.values()}
    return {*(["text"] if source.prompt.text_columns else []), *media}


def _maker(held_out: HeldOut, perturbation: Perturbation, strength: float) -> Callable[[int], Example | None]:
    """Return what makes the perturbed example of a place, and gives None where it is as it was."""
    maker, table, columns = held_out.maker, held_out.table, held_out.source.prompt.text_columns

    def text(place: int) -> Example | None:
        row = held_out.rows[place]
        segments = maker.segments(
            table,
            row,
            lambda column, text: perturbation.apply(
                text, strength, generator(_SEED, row, columns.index(column))
            ),
        )
        return None if _same(segments, maker.segments(table, row)) else maker.input(segments, table, row)

    def medium(place: int) -> Example | None:
        row, changed = held_out.rows[place], False

        def change(slot: int, modality: str, item: Any) -> Any:
            nonlocal changed
            if maker.interfaces[modality].media != perturbation.kind:
                return item
            other = perturbation.apply(item, strength, generator(_SEED, row, slot))
            changed |= other is not item
            return other

        example = maker.input(maker.segments(table, row), table, row, change)
        return example if changed else None

    return text if perturbation.kind == "text" else medium


def _same(segments: Sequence[Segment], others: Sequence[Segment]) -> bool:
    first, second = (
        [segment if isinstance(segment, Slot) else as_bytes(segment) for segment in some]
        for some in (segments, others)
    )
    return first == second


def _scores(held_out: HeldOut, answers: Sequence[Answer]) -> dict[str, Score]:
    return {metric.name: score(metric, answers) for metric in held_out.source.metrics}
