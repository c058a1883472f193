"""RUN/evaluation.json as values: what the model reached on each source, with intervals."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.bootstrap import Score

NO_SCORE = Score(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Measured:
    """A metric of a source."""

    score: Score
    higher_is_better: bool


@dataclass(frozen=True)
class Use:
    """A metric with a modality's own input, with another example's, and without; gains have better as positive."""

    modality: str
    metric: str
    higher_is_better: bool
    real: Score
    shuffled: Score
    none: Score
    gain_over_shuffled: Score
    gain_over_none: Score

    @property
    def has_shuffled(self) -> bool:
        return not math.isnan(self.gain_over_shuffled.value)

    @property
    def gain(self) -> Score:
        """The gain over another example's input, over none if that was not measured."""
        return self.gain_over_shuffled if self.has_shuffled else self.gain_over_none

    @property
    def is_used(self) -> bool | None:
        return is_used(self.gain_over_shuffled)


@dataclass(frozen=True)
class Curve:
    """A metric against the strength of a perturbation."""

    perturbation: str
    unit: str
    points: dict[str, list[tuple[float, Score]]]


@dataclass(frozen=True)
class Robustness:
    """Curves over some examples, and what the metrics are without a perturbation."""

    examples: int
    clean: dict[str, Score]
    curves: list[Curve]


@dataclass(frozen=True)
class Source:
    """The figures of a source; `malformed` is the share of outputs that are not UTF-8, None if it does not say."""

    examples: int
    skipped: int
    labels: list[str] | None
    metrics: dict[str, Measured]
    use_examples: int = 0
    uses: list[Use] = field(default_factory=list)
    malformed: float | None = None
    robustness: Robustness | None = None
    counted_as_wrong: int = 0


@dataclass(frozen=True)
class Evaluation:
    """The content of evaluation.json; what it does not say is None."""

    sources: dict[str, Source]
    bits_per_byte: dict[str, float]
    date: str | None
    checkpoint: str | None
    step: int | None
    seconds: float | None
    generated_bytes_per_second: float | None
    hardware: str | None
    confidence: float
    resamples: int | None

    @property
    def uses(self) -> list[tuple[str, Use]]:
        """(source, use) of all that was measured."""
        return [(name, use) for name, source in self.sources.items() for use in source.uses]

    @property
    def main_uses(self) -> list[tuple[str, Use]]:
        """(source, use) of the first metric of every source and modality."""
        first: dict[tuple[str, str], Use] = {}
        for source, use in self.uses:
            first.setdefault((source, use.modality), use)
        return [(source, use) for (source, _), use in first.items()]

    @property
    def main_metrics(self) -> list[tuple[str, str, Measured]]:
        """(source, metric, value) of the first metric of every source."""
        return [
            (name, *next(iter(source.metrics.items())))
            for name, source in self.sources.items()
            if source.metrics
        ]


def is_used(gain: Score) -> bool | None:
    """Return True if a gain's interval is above zero, False if below, None if it holds zero or is not known."""
    return True if gain.low > 0 else False if gain.high < 0 else None


def read_evaluation(path: Path) -> Evaluation | None:
    """Return the evaluation; None where there is none. Raises `UserError` for a file that is not one."""
    if not path.is_file():
        return None
    try:
        return _evaluation(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            f"'{path}' is not an evaluation ({type(error).__name__}: {error}); delete it and evaluate again"
        ) from error


def _evaluation(content: dict[str, Any]) -> Evaluation:
    return Evaluation(
        sources={name: _source(block) for name, block in content["sources"].items()},
        bits_per_byte={p: _real(v) for p, v in (content.get("bits_per_byte") or {}).items()},
        date=_text(content.get("date")),
        checkpoint=_text(content.get("checkpoint")),
        step=content.get("step") if isinstance(content.get("step"), int) else None,
        seconds=_known(content.get("seconds")),
        generated_bytes_per_second=_known(content.get("generated_bytes_per_second")),
        hardware=_text(content.get("hardware")),
        confidence=float(content.get("confidence", 0.95)),
        resamples=content.get("resamples") if isinstance(content.get("resamples"), int) else None,
    )


def _source(block: dict[str, Any]) -> Source:
    use = block.get("modality_use") or {}
    robustness = block.get("robustness")
    return Source(
        examples=int(block.get("examples", 0)),
        skipped=int(block.get("skipped", 0)),
        counted_as_wrong=int(block.get("counted_as_wrong", 0)),
        labels=None if block.get("labels") is None else [str(label) for label in block["labels"]],
        metrics={
            name: Measured(_score(m), bool(m.get("higher_is_better", True)))
            for name, m in block["metrics"].items()
        },
        use_examples=int(use.get("examples", 0)),
        uses=[
            _use(modality, metric, figures)
            for modality, metrics in (use.get("modalities") or {}).items()
            for metric, figures in metrics.items()
        ],
        robustness=_robustness(robustness) if robustness else None,
        malformed=_known(block.get("malformed")),
    )


def _use(modality: str, metric: str, figures: dict[str, Any]) -> Use:
    higher = bool(figures.get("higher_is_better", True))
    gains = (_score(figures.get(f"real_minus_{other}")) for other in ("shuffled", "none"))
    over_shuffled, over_none = (gain if higher else _negative(gain) for gain in gains)
    real, shuffled, none = (_score(figures.get(key)) for key in ("real", "shuffled", "none"))
    return Use(modality, metric, higher, real, shuffled, none, over_shuffled, over_none)


def _robustness(block: dict[str, Any]) -> Robustness:
    curves = []
    for curve in block.get("curves") or ():
        points: dict[str, list[tuple[float, Score]]] = {}
        for point in curve["points"]:
            for metric, score in point["metrics"].items():
                points.setdefault(metric, []).append((_real(point["strength"]), _score(score)))
        ordered = {metric: sorted(found, key=lambda p: p[0]) for metric, found in points.items()}
        curves.append(Curve(str(curve["perturbation"]), str(curve.get("unit", "")), ordered))
    clean = {metric: _score(score) for metric, score in (block.get("clean") or {}).items()}
    return Robustness(int(block.get("examples", 0)), clean, curves)


def _negative(score: Score) -> Score:
    return Score(-score.value, -score.high, -score.low)


def _score(block: dict[str, Any] | None) -> Score:
    if block is None:
        return NO_SCORE
    return Score(_real(block.get("value")), _real(block.get("low")), _real(block.get("high")))


def _real(value: Any) -> float:
    return math.nan if value is None else float(value)


def _known(value: Any) -> float | None:
    return None if value is None or math.isnan(float(value)) else float(value)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
