"""The progress bar, and metrics that are only ever appended."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kebyt5_xm.data.batch import Progress
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks.progress import ProgressBar
from kebyt5_xm.training.loggers import TENSORBOARD_FOLDER, MetricsLog, make_tensorboard_logger


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
