"""What a run records of itself: throughput of training alone, and figures that are only ever appended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kebyt5_xm import progress
from kebyt5_xm.metrics_log import MetricsLog
from kebyt5_xm.progress import Throughput
from kebyt5_xm.run import Run


class Clock:
    """A clock that tests move by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)


def test_throughput_counts_neither_validation_nor_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log=lambda name, value, **_: logged.update({name: value}))
    trainer: Any = SimpleNamespace(global_step=0, log_every_n_steps=1, world_size=3)
    throughput = Throughput()

    throughput.on_validation_start(trainer, module)  # a validation before the first step
    clock.now += 500
    throughput.on_validation_end(trainer, module)
    throughput.on_train_start(trainer, module)
    for step in (1, 2):
        clock.now += 4
        throughput.on_validation_start(trainer, module)
        clock.now += 100
        throughput.on_validation_end(trainer, module)
        clock.now += 1
        trainer.global_step = step
        batch: Any = SimpleNamespace(num_ids=70 * step, step=step - 1, next_step=step)
        throughput.on_train_batch_end(trainer, module, None, batch, step - 1)

    assert logged == {"train/bytes_per_second": 140 * 3 / 5}
    assert throughput.total_seconds == 10
    assert throughput.bytes_per_second == 210 * 3 / 10


def test_metrics_are_appended_over_two_lives_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    MetricsLog(tmp_path).log_metrics({"train/loss": 0.1 + 0.2, "epoch": 0.0}, step=0)
    MetricsLog(tmp_path).log_metrics({"train/loss": 1.5}, step=6)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("9,train/lo")  # what a kill leaves of a row
    assert Run(tmp_path).metrics() == [
        {"step": 1, "metric": "train/loss", "value": 0.1 + 0.2},
        {"step": 7, "metric": "train/loss", "value": 1.5},
    ]
