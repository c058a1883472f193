"""Steps and validations that are not finite: RUN/incidents.jsonl lists them, and too many such steps stop the run.

    {"step", "what": "step", "loss", "gradient_norm", "sources", "rows": [{"source", "path", "line"}]}
    {"step", "what": "validation", "parts": [held-out parts without a finite loss]}

Values that are not finite are written as texts (`nan`, `inf`), since JSON has no numbers for them.
"""

import math
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.callbacks.checkpoints import Newest
from kebyt5_xm.training.task import Task

FILE = "incidents.jsonl"
MAX_ROWS = 16
"""Rows that are listed for a step."""


class Incidents(pl.Callback):
    """Records steps and validations that are not finite.

    After `max_bad_steps` such steps in a row, it saves the run and raises `UserError`.
    """

    def __init__(self, run: Path, max_bad_steps: int, newest: Newest, task: Task, data: DataModule) -> None:
        if max_bad_steps < 1:
            raise UserError(f"max_bad_steps is {max_bad_steps}; expected 1 or more")
        self.path = run / FILE
        self.max_bad_steps = max_bad_steps
        self.newest = newest
        self.task, self.data = task, data
        self._in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._in_a_row = state_dict["in_a_row"]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if not batch.progress.ends_step:
            return
        watch = self.task.watch
        if watch.is_finite:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        loss, sources, rows = _collect(trainer, self.task, self.data)
        norm = watch.gradient_norm
        self._write(
            trainer,
            {
                "step": trainer.global_step,
                "what": "step",
                "loss": _json_value(loss),
                "gradient_norm": _json_value(norm),
                "sources": sources,
                "rows": rows,
            },
        )
        found = (
            f"step {trainer.global_step}: loss {loss:.4g} and gradient norm {norm:.4g} are not both finite (sources "
            f"{', '.join(sources)}), so it has changed no weight; see {self.path}"
        )
        if self._in_a_row < self.max_bad_steps:
            rank_zero_info(found)
            return
        self.newest.save(trainer, prune=False)
        again = "" if self.max_bad_steps == 1 else f" for {self.max_bad_steps} steps in a row"
        raise UserError(
            f"{found}; the run is stopped{again} and saved: lower the rates or mend the rows, and continue with "
            "--ckpt_path last, or raise max_bad_steps"
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        begin = "val/loss/"
        parts = [
            name.removeprefix(begin)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(begin) and not math.isfinite(value)
        ]
        if parts:
            self._write(trainer, {"step": trainer.global_step, "what": "validation", "parts": parts})
            rank_zero_info(
                f"step {trainer.global_step}: the held-out loss of {', '.join(parts)} is not finite, so never the "
                f"best; see {self.path}"
            )

    def _write(self, trainer: pl.Trainer, row: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(to_json_line(row))
                file.flush()
                os.fsync(file.fileno())


def _collect(
    trainer: pl.Trainer, task: Task, data: DataModule
) -> tuple[float, list[str], list[dict[str, Any]]]:
    """Return the loss of the step, and the sources and rows of the examples whose losses are not finite.

    If only the gradient is not finite, all sources of the step are returned, and no rows.
    """
    parts, whole = task.tally.totals(trainer.strategy)
    names = data.training.names
    bad = [
        name for name, part in zip(names, parts, strict=True) if part.targets and not math.isfinite(part.loss)
    ]
    sources = bad or [name for name, part in zip(names, parts, strict=True) if part.targets]
    rows = _rows(data, task.step_start, task.watch.bad_rows(), trainer.global_rank, trainer.world_size)
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, rows)
        rows = [row for some in gathered for row in some]
    return whole.loss, sources, rows[:MAX_ROWS]


def _rows(
    data: DataModule, start: int, bad: list[list[int]], rank: int, world_size: int
) -> list[dict[str, Any]]:
    """Return source, file and line of the examples in the bad rows of a rank's micro-batches."""
    found = []
    for micro_batch, rows in zip(data.steps.batch(start).micro_batches[rank::world_size], bad, strict=True):
        draws, packed = micro_batch.draws, micro_batch.packed_row
        for place in range(len(draws)):
            if (place if packed is None else int(packed[place])) in rows:
                part, row = int(draws.part[place]), int(draws.row[place])
                path, line = data.training.place(part, row)
                found.append({"source": data.training.names[part], "path": path, "line": line})
    return found


def _json_value(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
