"""Skipped examples, which could not be made: RUN/skipped.jsonl lists them, and too many of them stop the run."""

from collections import Counter
from pathlib import Path

import lightning.pytorch as pl
import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.bad_sample import Skip, to_json_line
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.loggers import is_log_step

MIN_DRAWN = 1000
"""The share of skipped examples is computed as if at least this many had been drawn, so that one bad file among the
first ten does not stop a run. Our own choice."""


class Skips(pl.Callback):
    """Appends {step, source, line, path, cause} to RUN/skipped.jsonl for every skipped example, and counts them.

    An example that is skipped in two epochs has two rows. `skipped/SOURCE` is the logged share of a source, over all
    ranks. Raises `UserError` on every rank, at a logged step, if the share is above `data.max_skipped`. Held-out
    examples have rows too, but no limit.
    """

    def __init__(self, data: DataModule) -> None:
        self.data = data
        self.drawn: Counter[int] = Counter()
        self.skipped: Counter[int] = Counter()
        self._held_out: set[tuple[str, Skip]] = set()
        self.totals: dict[str, tuple[int, int]] = {}  # source -> (skipped, drawn), over all ranks

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.drawn.update(batch.drawn)
        if batch.skipped:
            self.skipped.update(part for part, _ in batch.skipped)
            self._write(
                trainer,
                batch.progress.step,
                [(self.data.training.names[part], skip) for part, skip in batch.skipped],
            )
        if batch.progress.ends_step and is_log_step(trainer):
            self._judge(trainer, batch.progress.step)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a row for every skipped held-out example, once per start of the run."""
        if trainer.state.fn != "fit" or not batch.skipped:
            return
        new = [(self.data.validation.names[part], skip) for part, skip in batch.skipped]
        new = [row for row in new if row not in self._held_out]
        self._held_out.update(new)
        self._write(trainer, trainer.global_step, new)

    def _write(self, trainer: pl.Trainer, step: int, skips: list[tuple[str, Skip]]) -> None:
        with (Path(trainer.default_root_dir) / "skipped.jsonl").open("ab") as file:
            for source, skip in skips:
                file.write(to_json_line({"step": step, "source": source, **skip._asdict()}))

    def _judge(self, trainer: pl.Trainer, step: int) -> None:
        counts = torch.tensor(
            [[self.skipped[part], self.drawn[part]] for part in range(len(self.data.training.names))],
            device=trainer.strategy.root_device,
            dtype=torch.int64,  # float32 is exact only up to 16.8 million
        )
        summed = trainer.strategy.reduce(counts, reduce_op="sum")
        assert isinstance(summed, torch.Tensor)
        self.totals = {
            name: (int(skipped), int(drawn))
            for name, (skipped, drawn) in zip(self.data.training.names, summed.tolist(), strict=True)
        }
        metrics = {f"skipped/{name}": s / d for name, (s, d) in self.totals.items() if s}
        for logger in trainer.loggers if metrics else []:
            logger.log_metrics(metrics, step)
        for name, (skipped, drawn) in self.totals.items():
            if skipped > self.data.max_skipped * max(drawn, MIN_DRAWN):
                run = Path(trainer.default_root_dir)
                saved = any((run / "checkpoints").glob("step=*.ckpt"))
                again = "continue with --ckpt_path last" if saved else "start again with another --run_dir"
                raise UserError(
                    f"{skipped} of {drawn} examples of '{name}' could not be made, more than data.max_skipped "
                    f"{self.data.max_skipped:g} allows; {run / 'skipped.jsonl'} lists them: mend them, or raise "
                    f"data.max_skipped, and {again}"
                )
