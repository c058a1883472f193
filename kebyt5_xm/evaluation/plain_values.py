"""Figures as JSON has them."""

import math
from typing import Any

from kebyt5_xm.metrics import Score


def plain(value: Any) -> Any:
    """Return a nested value with scores as mappings, and None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Score):
        return plain(value.as_dict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
