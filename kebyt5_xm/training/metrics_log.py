"""RUN/metrics.csv: every logged figure of a run, one row each, appended.

Lightning's own CSVLogger deletes the file of an earlier start when a run is continued, and rewrites it as
columns are added; rows of (step, metric, value) need neither, and survive a kill.
"""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from kebyt5_xm.model.finite import figures

FIELDS = ("step", "metric", "value")


def is_log_step(trainer: pl.Trainer) -> bool:
    """Say whether the step that has just ended is one whose figures are logged: every n-th, and the last."""
    every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
    return (every > 0 and trainer.global_step % every == 0) or trainer.global_step == trainer.max_steps


class MetricsLog(Logger):
    """Appends to RUN/metrics.csv what is a figure; NaN and infinities are in RUN/incidents.jsonl alone.

    `step` is the number of optimizer steps trained, as in the names of checkpoints.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / "metrics.csv"

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        trained = 0 if step is None else step + 1  # Lightning counts from zero
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(FIELDS)
            writer.writerows(
                (trained, name, repr(value)) for name, value in figures(metrics).items() if name != "epoch"
            )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the whole recipe is in RUN/config.yaml."""
