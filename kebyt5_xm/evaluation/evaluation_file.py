"""RUN/evaluation.json: the scores of a model on each source, with intervals. The same classes write and read it.

`as_dict` returns what the file has, and `from_dict` reads it, also from older files with fewer keys.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.baseline_scores import SimpleBaselines
from kebyt5_xm.evaluation.json_numbers import read_known, read_real, read_score, read_scores, to_json_values
from kebyt5_xm.metrics.bootstrap import CONFIDENCE, Score


@dataclass(frozen=True)
class MetricScore:
    """A metric of a source."""

    score: Score
    higher_is_better: bool

    def as_dict(self) -> dict[str, Any]:
        return {**self.score.as_dict(), "higher_is_better": self.higher_is_better}

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "MetricScore":
        return cls(read_score(block), bool(block.get("higher_is_better", True)))


@dataclass(frozen=True)
class Use:
    """One metric with the real media of a modality, with media of other examples (`shuffled`), and with none.

    The differences are those of a paired bootstrap over the same examples. With fewer than two examples nothing can
    be shuffled, and the shuffled scores are NaN.
    """

    real: Score
    shuffled: Score
    none: Score
    real_minus_shuffled: Score
    real_minus_none: Score
    higher_is_better: bool

    @property
    def gain_over_shuffled(self) -> Score:
        """`real_minus_shuffled`, with better as positive."""
        return self._gain(self.real_minus_shuffled)

    @property
    def gain_over_none(self) -> Score:
        """`real_minus_none`, with better as positive."""
        return self._gain(self.real_minus_none)

    @property
    def has_shuffled(self) -> bool:
        return not math.isnan(self.real_minus_shuffled.value)

    @property
    def is_used(self) -> bool | None:
        """True if real media are better than shuffled ones, by an interval that leaves out 0; None if not measured.

        Shuffled media decide, and not their absence: an example without media is unlike anything in training, so a
        model may do worse on it even if it cannot tell one medium from another.
        """
        gain = self.gain_over_shuffled
        return None if math.isnan(gain.low) else interval_sign(gain) > 0

    @property
    def is_harmful(self) -> bool:
        """True if real media are worse than shuffled ones, by an interval that leaves out 0."""
        return interval_sign(self.gain_over_shuffled) < 0

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "Use":
        names = ("real", "shuffled", "none", "real_minus_shuffled", "real_minus_none")
        scores = {name: read_score(block.get(name)) for name in names}
        return cls(**scores, higher_is_better=bool(block.get("higher_is_better", True)))

    def _gain(self, difference: Score) -> Score:
        if self.higher_is_better:
            return difference
        return Score(-difference.value, -difference.high, -difference.low)


@dataclass(frozen=True)
class ModalityUse:
    """Modality -> metric -> its scores, over the first examples of a source, whose first metric comes first."""

    num_examples: int
    modalities: dict[str, dict[str, Use]]

    def is_used(self, modality: str) -> bool | None:
        """Return whether a modality is used, by the source's first metric (see `Use.is_used`)."""
        return next(iter(self.modalities[modality].values())).is_used

    def as_dict(self) -> dict[str, Any]:
        content = to_json_values(asdict(self))
        used = {modality: self.is_used(modality) for modality in self.modalities}
        return {"examples": content.pop("num_examples"), **content, "used": used}

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "ModalityUse":
        modalities = {
            modality: {name: Use.from_dict(use) for name, use in metrics.items()}
            for modality, metrics in (block.get("modalities") or {}).items()
        }
        return cls(int(block.get("examples", 0)), modalities)


@dataclass(frozen=True)
class Point:
    """Metrics at one strength. `changed` examples differ from the clean ones; the others keep their clean answers."""

    strength: float
    changed: int
    metrics: dict[str, Score]

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "Point":
        return cls(read_real(block["strength"]), int(block.get("changed", 0)), read_scores(block["metrics"]))


@dataclass(frozen=True)
class Curve:
    """The points of one perturbation, from weak to strong."""

    perturbation: str
    kind: str
    unit: str
    points: list[Point]

    def by_metric(self) -> dict[str, list[tuple[float, Score]]]:
        """Return metric -> (strength, score), by strength."""
        found: dict[str, list[tuple[float, Score]]] = {}
        for point in sorted(self.points, key=lambda point: point.strength):
            for metric, score in point.metrics.items():
                found.setdefault(metric, []).append((point.strength, score))
        return found

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "Curve":
        points = [Point.from_dict(point) for point in block["points"]]
        return cls(str(block["perturbation"]), str(block.get("kind", "")), str(block.get("unit", "")), points)


@dataclass(frozen=True)
class Robustness:
    """The metrics of the first examples of a source without a perturbation (`clean`), and a curve for each one."""

    num_examples: int
    clean: dict[str, Score]
    curves: list[Curve]

    def as_dict(self) -> dict[str, Any]:
        content = to_json_values(asdict(self))
        return {"examples": content.pop("num_examples"), **content}

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "Robustness":
        curves = [Curve.from_dict(curve) for curve in block.get("curves") or ()]
        return cls(int(block.get("examples", 0)), read_scores(block.get("clean") or {}), curves)


@dataclass(frozen=True)
class SourceEvaluation:
    """The scores of a source. `malformed` is the share of answers that are not UTF-8, `repetition` of those that end
    in one phrase over and over; None if unknown."""

    metrics: dict[str, MetricScore]
    examples: int = 0
    skipped: int = 0
    counted_as_wrong: int = 0
    labels: list[str] | None = None
    modalities: tuple[str, ...] = ()
    malformed: float | None = None
    repetition: float | None = None
    modality_use: ModalityUse | None = None
    robustness: Robustness | None = None
    baselines: SimpleBaselines | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "examples": self.examples,
            "skipped": self.skipped,
            "counted_as_wrong": self.counted_as_wrong,
            "labels": self.labels,
            "modalities": list(self.modalities),
            "malformed": self.malformed,
            "repetition": self.repetition,
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
            **({"modality_use": self.modality_use.as_dict()} if self.modality_use else {}),
            **({"robustness": self.robustness.as_dict()} if self.robustness else {}),
            **({"baselines": self.baselines.as_dict()} if self.baselines else {}),
        }

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "SourceEvaluation":
        labels, use, robustness = (block.get(key) for key in ("labels", "modality_use", "robustness"))
        baselines = block.get("baselines")
        return cls(
            metrics={name: MetricScore.from_dict(metric) for name, metric in block["metrics"].items()},
            examples=int(block.get("examples", 0)),
            skipped=int(block.get("skipped", 0)),
            counted_as_wrong=int(block.get("counted_as_wrong", 0)),
            labels=None if labels is None else [str(label) for label in labels],
            modalities=tuple(map(str, block.get("modalities") or ())),
            malformed=read_known(block.get("malformed")),
            repetition=read_known(block.get("repetition")),
            modality_use=ModalityUse.from_dict(use) if use else None,
            robustness=Robustness.from_dict(robustness) if robustness else None,
            baselines=SimpleBaselines.from_dict(baselines) if baselines else None,
        )


@dataclass(frozen=True)
class EvaluationFile:
    """The content of the file. A value that an older file lacks is None."""

    sources: dict[str, SourceEvaluation]
    bits_per_byte: dict[str, float]
    date: str | None = None
    checkpoint: str | None = None
    step: int | None = None
    hardware: str | None = None
    confidence: float = CONFIDENCE
    resamples: int | None = None
    generated_bytes_per_second: float | None = None
    seconds: float | None = None

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = vars(self) | {"sources": {name: source.as_dict() for name, source in self.sources.items()}}
        with durable_file(path) as file:
            file.write((json.dumps(to_json_values(content), indent=2, ensure_ascii=False) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> "EvaluationFile | None":
        """Read the file; None if there is none. Raises `UserError` for a file that is not an evaluation."""
        if not path.is_file():
            return None
        try:
            return cls._from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(
                f"'{path}' is not an evaluation ({type(error).__name__}: {error}); delete it and evaluate again"
            ) from error

    @classmethod
    def _from_dict(cls, content: dict[str, Any]) -> "EvaluationFile":
        return cls(
            sources={name: SourceEvaluation.from_dict(block) for name, block in content["sources"].items()},
            bits_per_byte={part: read_real(v) for part, v in (content.get("bits_per_byte") or {}).items()},
            date=_text(content.get("date")),
            checkpoint=_text(content.get("checkpoint")),
            step=_integer(content.get("step")),
            hardware=_text(content.get("hardware")),
            confidence=float(content.get("confidence", CONFIDENCE)),
            resamples=_integer(content.get("resamples")),
            generated_bytes_per_second=read_known(content.get("generated_bytes_per_second")),
            seconds=read_known(content.get("seconds")),
        )


def interval_sign(score: Score) -> int:
    """Return 1 if the interval of a difference is above zero, -1 if below, 0 if it holds zero or is unknown."""
    return 1 if score.low > 0 else -1 if score.high < 0 else 0


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
