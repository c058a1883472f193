"""The `monitor` of the best checkpoint must be one that a validation logs."""

from types import SimpleNamespace
from typing import Any

import pytest

from kebyt5_xm.errors import UserError
from kebyt5_xm.training.callbacks.checkpoints import Best, check_monitor

DATA: Any = SimpleNamespace(validation=SimpleNamespace(names=["text/ko"]), sources={})


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        ("val/bits_per_byt", "which no validation of this run logs; .* did you mean 'val/bits_per_byte'"),
    ],
)
def test_a_monitor_that_nothing_logs_is_refused(monitor: str, message: str, tmp_path: Any) -> None:
    Best(tmp_path, monitor, DATA)  # says nothing yet: `setup` does, before weights are loaded
    with pytest.raises(UserError, match=message):
        check_monitor(monitor, DATA)
