"""Simple baselines beside a model's scores. `simple.simple_baselines` measures them; other code may call it."""

from typing import Literal

When = Literal["auto", "on", "off"]
"""Whether to measure: `auto` only up to the limits below."""

AUTO_ROWS = 10_000
"""Training rows of a source up to which `auto` measures. Our own choice: about a minute for texts on two cores."""
AUTO_SECONDS = 120
"""Seconds that the features of media may take for `auto`, judged by the first of them. Our own choice."""
