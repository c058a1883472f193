"""How many files `make fuzz` and `make test` try of each kind."""

import os

from hypothesis import HealthCheck, settings

LONG = "KEBYT5_XM_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("KEBYT5_XM_FUZZ", "500"))
FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize=not LONG,  # `make test` tries the same files every time, `make fuzz` others
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
