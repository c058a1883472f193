"""Evaluation: answers and scores of held-out examples, entropies and simple baselines beside them, reports."""

PROBED_EXAMPLES = 200
"""Held-out examples of each source that probes use. Our own choice: an accuracy of 0.5 then has an interval of about
0.07 to either side."""

SHOWN_EXAMPLES = 12
"""Outputs of each source that a report shows."""
