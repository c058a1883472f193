"""Checks before training: a metric's options exist, and the metric fits its source."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from kebyt5_xm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kebyt5_xm.metrics.metric import Metric

T = TypeVar("T")


def check_metrics(
    metrics: "Sequence[Metric]", references: Sequence[Sequence[str]], labels: Sequence[str] | None
) -> None:
    """Raise `UserError` if a metric does not fit a source (`Metric.check`), or if two have the same name in logs."""
    names = [metric.name for metric in metrics]
    for metric, name in zip(metrics, names, strict=True):
        if names.count(name) > 1:
            raise UserError(
                f"found {names.count(name)} metrics that are logged as '{name}', expected one; remove the others, or "
                "give them different options"
            )
        metric.check(references, labels)


def check_choice(option: str, value: T, choices: Any) -> T:
    """Return `value` if it is one of the choices of a `Literal`; raise `UserError` otherwise."""
    known = get_args(choices)
    if value not in known:
        raise UserError(
            f"found {option}: {value}, expected one of {', '.join(known)}{did_you_mean(str(value), known)}"
        )
    return value


def require_labels(metric: str, labels: Sequence[str] | None, instead: str) -> None:
    """Raise `UserError` if the source has no labels."""
    if labels is None:
        raise UserError(
            f"{metric} needs a source with labels, found none; list them under `labels`, or use {instead}"
        )


def require_free_texts(metric: str, labels: Sequence[str] | None) -> None:
    """Raise `UserError` if the source has labels."""
    if labels is not None:
        shown = ", ".join(list(labels)[:4])
        raise UserError(
            f"{metric} judges free texts, but the answers of this source are its {len(labels)} labels "
            f"({shown}{', ...' if len(labels) > 4 else ''}); use Accuracy, MacroF1 or MicroF1"
        )


def require_content(
    metric: str, references: Sequence[Sequence[str]], content: Callable[[str], object], lacks: str
) -> None:
    """Raise `UserError` if `content` of a reference is empty, naming the first such example."""
    empty = [number for number, texts in enumerate(references, 1) if not all(map(content, texts))]
    if empty:
        raise UserError(
            f"{metric} cannot judge by a reference without {lacks}, found {len(empty)} in "
            f"{len(references)} held-out examples, the first in example {empty[0]}; leave those rows out"
        )
