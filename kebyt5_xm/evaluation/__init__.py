"""Evaluation: baselines, tables of samples, metrics and reports."""

PROBED_EXAMPLES = 200
"""Held-out examples of a source for its probes. Our own choice: the interval of an accuracy of 0.5 is then about 0.07
to either side."""

SHOWN_EXAMPLES = 12
"""Outputs of each source that a report shows."""
