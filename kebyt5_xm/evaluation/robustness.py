"""Robustness: every metric on the same held-out examples, clean and perturbed at several strengths."""

from collections.abc import Callable, Sequence
from typing import Any

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.perturbations import Kind, Perturbation, make_generator
from kebyt5_xm.data.perturbations.every import PERTURBATIONS
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.sources.template import MediaSegment, Segment, as_bytes
from kebyt5_xm.evaluation.evaluation_file import Curve, Point, Robustness
from kebyt5_xm.evaluation.held_out import HeldOut, Tell
from kebyt5_xm.metrics import Answer, Score, score

_SEED = 0
"""Seed of every random draw. Its value is arbitrary, but fixed, so that evaluations are comparable."""


def measure_robustness(
    held_out: HeldOut,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    tell: Tell = lambda _: None,
) -> Robustness:
    """Answer the examples under every perturbation that fits the source, and judge the answers.

    Text perturbations change only text from columns of the table, never the prompt's own words; image and audio
    perturbations change the media of slots. A perturbation that changes none of the examples (decomposed Korean, in
    an English source) has no curve.
    """
    fitting = [p for p in perturbations if p.kind in _kinds(held_out.prompts)]
    curves = []
    for number, perturbation in enumerate(fitting, start=1):
        points = []
        for strength in perturbation.strengths:
            tell(f"robustness: {perturbation.name} {strength:g}, perturbation {number} of {len(fitting)}")
            answers = held_out.answers(_example_maker(held_out, perturbation, strength))
            changed = sum(a is not clean for a, clean in zip(answers, held_out.clean, strict=True))
            points.append(Point(strength, changed, _scores(held_out, answers)))
        if any(point.changed for point in points):
            curves.append(Curve(perturbation.name, perturbation.kind, perturbation.unit, points))
    return Robustness(len(held_out.rows), _scores(held_out, held_out.clean), curves)


def _kinds(prompts: PromptTable) -> set[Kind | str]:
    """Return the kinds of input in the prompts: `text`, and media."""
    media = {interface.media for interface in prompts.interfaces.values()}
    return {*(["text"] if prompts.prompt.text_columns else []), *media}


def _example_maker(
    held_out: HeldOut, perturbation: Perturbation, strength: float
) -> Callable[[int], Example | None]:
    """Return a function from an example's position to the perturbed example, None if nothing was changed."""
    prompts = held_out.changed
    columns = prompts.prompt.text_columns

    def perturb_text(position: int) -> Example | None:
        row = held_out.rows[position]
        segments = prompts.segments(
            row,
            lambda column, text: perturbation.apply(
                text, strength, make_generator(_SEED, row, columns.index(column))
            ),
        )
        return None if _are_same(segments, prompts.segments(row)) else prompts.input(row, segments)

    def perturb_medium(position: int) -> Example | None:
        row, changed = held_out.rows[position], False

        def change(slot: int, modality: str, item: Any) -> Any:
            nonlocal changed
            if prompts.interfaces[modality].media != perturbation.kind:
                return item
            perturbed = perturbation.apply(item, strength, make_generator(_SEED, row, slot))
            changed |= perturbed is not item
            return perturbed

        example = prompts.input(row, prompts.segments(row), change)
        return example if changed else None

    return perturb_text if perturbation.kind == "text" else perturb_medium


def _are_same(segments: Sequence[Segment], others: Sequence[Segment]) -> bool:
    first, second = (
        [segment if isinstance(segment, MediaSegment) else as_bytes(segment) for segment in side]
        for side in (segments, others)
    )
    return first == second


def _scores(held_out: HeldOut, answers: Sequence[Answer]) -> dict[str, Score]:
    return {metric.name: score(metric, answers) for metric in held_out.metrics}
