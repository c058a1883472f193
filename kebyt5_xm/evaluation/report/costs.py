"""What the run took: speed, memory, and hours of devices."""

from typing import Any

from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import Child, data, say
from kebyt5_xm.evaluation.report.numbers import duration, number
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.tables import facts, note


def costs(record: Record) -> Markup:
    """Return what is recorded of speed, memory and cost."""
    known = [(name, value) for name, value in cost_entries(record) if value is not None]
    if not known:
        return note(
            say(
                "results.json이 없습니다: 학습이 끝나면 기록됩니다.",
                "There is no results.json; it is written when training ends.",
            )
        )
    return facts(known)


def cost_entries(record: Record) -> list[tuple[Child, Child | None]]:
    """Return name and value of every figure; None for what is not recorded."""
    results, evaluation = record.results, record.evaluation
    written = evaluation.generated_bytes_per_second if evaluation else None
    return [
        (say("학습한 장치", "Trained on"), _words(results.get("hardware"))),
        (say("학습 시간", "Training time"), _of(results.get("train_seconds"), duration)),
        (say("장치 시간", "Device hours"), _of(results.get("device_hours"), lambda hours: f"{hours:.3g} h")),
        (
            say("학습 속도", "Training speed"),
            _of(results.get("bytes_per_second"), lambda rate: f"{number(round(rate))} B/s"),
        ),
        (
            say("최대 메모리", "Peak memory"),
            _of(results.get("peak_memory_gb"), lambda size: f"{size:.2f} GB"),
        ),
        (say("평가한 장치", "Evaluated on"), _words(evaluation.hardware if evaluation else None)),
        (say("평가 시간", "Evaluation time"), _of(evaluation.seconds if evaluation else None, duration)),
        (say("쓰기 속도", "Writing speed"), _of(written, lambda rate: f"{number(rate)} B/s")),
    ]


def _of(value: Any, told) -> str | None:
    return told(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _words(value: Any) -> Markup | None:
    return None if value is None else data(value)
