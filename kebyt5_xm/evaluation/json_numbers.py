"""Numbers in JSON files, which have no NaN and no infinities: null stands for them."""

import math
from collections.abc import Mapping
from typing import Any

from kebyt5_xm.metrics.bootstrap import Score


def to_json_values(value: Any) -> Any:
    """Return a nested value with None for NaN and infinities."""
    if isinstance(value, dict):
        return {key: to_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_real(value: Any) -> float:
    """Return a number; NaN for null."""
    return math.nan if value is None else float(value)


def read_known(value: Any) -> float | None:
    """Return a number; None for null and NaN."""
    return None if value is None or math.isnan(float(value)) else float(value)


def read_score(block: Mapping[str, Any] | None) -> Score:
    """Return the value and its interval; NaN for what is absent."""
    return Score(*(read_real((block or {}).get(key)) for key in ("value", "low", "high")))


def read_scores(block: Mapping[str, Any]) -> dict[str, Score]:
    """Return metric -> score."""
    return {metric: read_score(score) for metric, score in block.items()}
