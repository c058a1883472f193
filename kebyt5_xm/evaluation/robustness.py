"""What damage costs: every metric on the same held-out examples, clean and perturbed in several strengths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.sources.prompts import Prompts
from kebyt5_xm.data.sources.template import Segment, Slot, as_bytes
from kebyt5_xm.evaluation.held_out import HeldOut, Tell
from kebyt5_xm.evaluation.perturbations import PERTURBATIONS, Kind, Perturbation, generator
from kebyt5_xm.evaluation.plain_values import plain
from kebyt5_xm.metrics import Answer, Score, score

_SEED = 0
"""Of all that is drawn: any will do, but always the same one."""


@dataclass(frozen=True)
class Point:
    """Metrics at one strength. `changed` examples are not as they were; the others keep their clean answers."""

    strength: float
    changed: int
    metrics: dict[str, Score]


@dataclass(frozen=True)
class Curve:
    """One perturbation from weak to strong."""

    perturbation: Perturbation
    points: list[Point]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: perturbation, kind and unit, and the points."""
        return {
            "perturbation": self.perturbation.name,
            "kind": self.perturbation.kind,
            "unit": self.perturbation.unit,
            "points": [
                {"strength": p.strength, "changed": p.changed, "metrics": plain(p.metrics)}
                for p in self.points
            ],
        }


@dataclass(frozen=True)
class Robustness:
    """What `robustness` found."""

    num_examples: int
    clean: dict[str, Score]
    curves: list[Curve]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `sources.NAME.robustness` of RUN/evaluation.json has them."""
        return {
            "examples": self.num_examples,
            "clean": plain(self.clean),
            "curves": [curve.as_dict() for curve in self.curves],
        }


def robustness(
    held_out: HeldOut,
    perturbations: Sequence[Perturbation] = PERTURBATIONS,
    tell: Tell = lambda _: None,
) -> Robustness:
    """Answer the examples under every perturbation that touches them, and judge the answers.

    Texts are perturbed where the prompt has columns of text, and only what comes from those; images and recordings
    where it has slots of them. A perturbation that changes none of the examples (decomposed Korean, in a source of
    English) has no curve.
    """
    fitting = [p for p in perturbations if p.kind in _kinds(held_out.prompts)]
    curves = []
    for number, perturbation in enumerate(fitting, start=1):
        points = []
        for strength in perturbation.strengths:
            tell(f"robustness: {perturbation.name} {strength:g}, perturbation {number} of {len(fitting)}")
            answers = held_out.answers(_maker(held_out, perturbation, strength))
            changed = sum(a is not clean for a, clean in zip(answers, held_out.clean, strict=True))
            points.append(Point(strength, changed, _scores(held_out, answers)))
        if any(point.changed for point in points):
            curves.append(Curve(perturbation, points))
    return Robustness(len(held_out.rows), _scores(held_out, held_out.clean), curves)


def _kinds(prompts: Prompts) -> set[Kind | str]:
    """Return what the prompt of a source has that can be perturbed, among other media."""
    media = {interface.media for interface in prompts.interfaces.values()}
    return {*(["text"] if prompts.prompt.text_columns else []), *media}


def _maker(held_out: HeldOut, perturbation: Perturbation, strength: float) -> Callable[[int], Example | None]:
    """Return a function: place -> the perturbed example, or None if the perturbation changed nothing."""
    prompts = held_out.changed
    columns = prompts.prompt.text_columns

    def text(place: int) -> Example | None:
        row = held_out.rows[place]
        segments = prompts.segments(
            row,
            lambda column, text: perturbation.apply(
                text, strength, generator(_SEED, row, columns.index(column))
            ),
        )
        return None if _same(segments, prompts.segments(row)) else prompts.input(row, segments)

    def medium(place: int) -> Example | None:
        row, changed = held_out.rows[place], False

        def change(slot: int, modality: str, item: Any) -> Any:
            nonlocal changed
            if prompts.interfaces[modality].media != perturbation.kind:
                return item
            other = perturbation.apply(item, strength, generator(_SEED, row, slot))
            changed |= other is not item
            return other

        example = prompts.input(row, prompts.segments(row), change)
        return example if changed else None

    return text if perturbation.kind == "text" else medium


def _same(segments: Sequence[Segment], others: Sequence[Segment]) -> bool:
    first, second = (
        [segment if isinstance(segment, Slot) else as_bytes(segment) for segment in some]
        for some in (segments, others)
    )
    return first == second


def _scores(held_out: HeldOut, answers: Sequence[Answer]) -> dict[str, Score]:
    return {metric.name: score(metric, answers) for metric in held_out.metrics}
