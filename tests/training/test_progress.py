"""Throughput of training alone, the progress bar, and metrics that are only ever appended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kebyt5_xm.data.batch import Progress
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks import progress
from kebyt5_xm.training.callbacks.progress import ProgressBar, Throughput
from kebyt5_xm.training.loggers import TENSORBOARD_FOLDER, MetricsLog, make_tensorboard_logger


class Clock:
    """A clock that tests move by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)


def test_throughput_counts_no_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(log=lambda name, value, **_: logged.update({name: value}))
    trainer: Any = SimpleNamespace(global_step=0, log_every_n_steps=1, max_steps=2, world_size=3, loggers=[])
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
        batch: Any = SimpleNamespace(num_ids=70 * step, progress=Progress(step=step - 1, next_step=step))
        throughput.on_train_batch_end(trainer, module, None, batch, step - 1)

    assert logged == {"train/bytes_per_second": 140 * 3 / 5}
    assert throughput.total_seconds == 10
    assert throughput.bytes_per_second == 210 * 3 / 10


@pytest.mark.parametrize("steps", [1, 9, 10, 19])
def test_throughput_counts_runs_of_any_length_to_the_last_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: int
) -> None:
    """Logged every ten steps and at the last: 70 ids and 0.05 seconds per step."""
    clock = Clock(monkeypatch)
    module: Any = SimpleNamespace(log=lambda *_, **__: None)
    trainer: Any = SimpleNamespace(
        log_every_n_steps=10, max_steps=steps, world_size=1, loggers=[MetricsLog(tmp_path)]
    )
    throughput = Throughput()
    throughput.on_train_start(trainer, module)
    for step in range(1, steps + 1):
        clock.now += 0.05
        trainer.global_step = step
        batch: Any = SimpleNamespace(num_ids=70, progress=Progress(step=step - 1, next_step=step))
        throughput.on_train_batch_end(trainer, module, None, batch, step - 1)
    assert throughput.total_seconds == pytest.approx(0.05 * steps)
    assert throughput.bytes_per_second == pytest.approx(1400)
    (tmp_path / "config.yaml").touch()
    assert [row["step"] for row in Run(tmp_path).metrics()] == sorted(
        {step for step in (10, steps) if step <= steps}
    )


def test_the_bar_counts_all_steps_and_starts_at_the_step_of_the_checkpoint() -> None:
    bar = ProgressBar()
    trainer: Any = SimpleNamespace(
        global_step=7, max_steps=13, progress_bar_metrics={}, is_global_zero=True, sanity_checking=False
    )
    bar.setup(trainer, SimpleNamespace(), "fit")  # pyright: ignore[reportArgumentType]
    bar.on_train_start()
    bar.on_train_epoch_start(trainer)
    shown = bar.train_progress_bar
    assert (shown.n, shown.initial, shown.total) == (7, 7, 13)
    trainer.global_step = 13
    for step, next_step in ((12, 12), (12, 13)):
        batch: Any = SimpleNamespace(progress=Progress(step=step, next_step=next_step))
        bar.on_train_batch_end(trainer, None, None, batch, 0)  # pyright: ignore[reportArgumentType]
    assert shown.n == 13
    shown.close()


def test_tensorboard_counts_trained_steps_and_drops_those_after_the_checkpoint(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed, steps in ((None, range(5)), (3, range(3, 5))):
        logger = make_tensorboard_logger(tmp_path, resumed)
        for step in steps:
            logger.log_metrics({"train/loss": float(step if resumed is None else -step)}, step)
        logger.finalize("success")
        logger.experiment.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER))
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [
        (1, 0.0),
        (2, 1.0),
        (3, 2.0),
        (4, -3.0),
        (5, -4.0),
    ]


def test_a_resumed_run_appends_its_metrics(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    MetricsLog(tmp_path).log_metrics({"train/loss": 0.1 + 0.2, "epoch": 0.0}, step=0)
    MetricsLog(tmp_path).log_metrics({"train/loss": 1.5}, step=6)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("9,train/lo")  # a row cut off by a kill
    assert Run(tmp_path).metrics() == [
        {"step": 1, "metric": "train/loss", "value": 0.1 + 0.2},
        {"step": 7, "metric": "train/loss", "value": 1.5},
    ]
